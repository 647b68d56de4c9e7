"""Translation of redis-py's errors: Disconnected if a retry may help, otherwise Refused with a remedy."""

from __future__ import annotations

import re
import ssl
from asyncio import CancelledError
from collections.abc import Iterator

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError

from redis_worker.vocabulary.errors import (
    DamagedKey,
    Disconnected,
    RedisWorkerError,
    Refused,
    Unacceptable,
    WrongType,
)

# Error codes of a temporary state: loading, failing over, full, or unable to write.
_TRANSIENT = frozenset((
    "LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "OOM", "MISCONF", "NOREPLICAS",
    "UNBLOCKED", "BUSY", "UNKILLABLE",
))  # fmt: skip
# TLS failures that last until a setting or certificate is changed.
_TLS_MISMATCH = re.compile(
    "CERTIFICATE|UNKNOWN_CA|WRONG_VERSION|PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|HANDSHAKE_FAILURE|"
    "NO_SHARED_CIPHER|UNRECOGNIZED_NAME|HTTP_REQUEST"
)
# Errors by which redis-py reports wrong use.
_DEFECTS = (exceptions.DataError,)


class UnknownScript(RedisWorkerError):
    """The server does not have the script, or lost it in a restart."""


def translated(error: Exception) -> Exception:
    """Return `error` as Disconnected (a retry may help), Refused (it will not), or unchanged (a defect)."""
    if isinstance(error, exceptions.NoScriptError):
        return UnknownScript(_text(error))
    causes = list(_causes(error))
    for cause in causes:
        if refusal := _refusal(cause):
            return refusal
    if isinstance(causes[-1], (exceptions.RedisError, OSError, EOFError)) and not isinstance(error, _DEFECTS):
        return Disconnected(_text(error))
    if isinstance(error, exceptions.RedisClusterException) and "cover" in str(error):
        return Disconnected(_text(error))  # some slots have no node at the moment
    return error


def is_defect(error: Exception) -> bool:
    """Return True if neither a server nor the network can cause `error`."""
    return not isinstance(translated(error), (Disconnected, Refused))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and the errors redis-py wrapped in it: with TLS, Unix sockets, and a cluster's first node."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        context = cause.__context__
        wraps = isinstance(context, ssl.SSLError) or isinstance(cause, exceptions.RedisClusterException)
        following = cause.__cause__ or (context if wraps else None)
        # The time limits of asyncio end a wait by a cancellation, and name it as the cause of their TimeoutError.
        cause = None if isinstance(following, CancelledError) else following


def _refusal(error: BaseException) -> Refused | None:
    """Return `error` as Refused if a retry cannot help, otherwise None."""
    sentence = _global_refusal(error)
    if sentence is not None:
        return Refused(sentence)
    if not isinstance(error, exceptions.ResponseError) or _is_transient(error):
        return None
    text = _text(error)
    if damaged := re.search(r"\bDAMAGED (\w+) (\w+) (.*)", text):
        found, expected, key = damaged.groups()
        return DamagedKey(key, found, expected)
    sentence = _refusal_sentence(text)
    # Any other reply may depend on the command's content: only the caller can send less.
    if sentence is None:
        return Unacceptable(f"Redis refuses: {text}")
    return WrongType(sentence) if "WRONGTYPE" in text else Refused(sentence)


def _global_refusal(error: BaseException) -> str | None:
    """Return the sentence for a permanent error that does not depend on the command, otherwise None."""
    text = _text(error)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError)):
        return f"Redis refuses the login: {text}; check the user name and password"
    if isinstance(error, MasterNotFoundError) and "AuthenticationError" in str(error):
        return "the sentinels refuse the login; give sentinel_username and sentinel_password"
    if isinstance(error, (exceptions.NoPermissionError, exceptions.AuthorizationError)):
        return f"Redis refuses the command: {text}; grant the user permission to run it"
    if isinstance(error, ssl.SSLError) and _TLS_MISMATCH.search(str(error)):
        return f"the TLS connection failed: {text}; check the certificates, and that the port accepts TLS"
    if isinstance(error, (exceptions.MovedError, exceptions.AskError, exceptions.ClusterCrossSlotError)):
        return f"this Redis is a cluster node ({text}): use a redis+cluster:// URL"
    if "command doesn't exist in Redis commands" in text:  # redis-py asks a cluster for its commands
        return f"Redis refuses: {text}"
    return None


def _is_transient(error: exceptions.ResponseError) -> bool:
    text = str(error)
    if "max number of clients" in text:
        return True
    # Before Redis 7 an error in a script was wrapped: ERR Error running script (…): … -OOM command …
    if wrapped := re.search(r"Error running script.*: -?([A-Z]{3,}) ", text):
        return wrapped[1] in _TRANSIENT
    # redis-py removes the code from the text of errors it has classes for.
    return (error.status_code or text.partition(" ")[0]) in _TRANSIENT


def _refusal_sentence(text: str) -> str | None:
    """Return the sentence for an error reply without a class in redis-py, None for any other."""
    if "WRONGTYPE" in text:
        return f"a key holds another type than it should: {text.partition('WRONGTYPE')[2].strip()}"
    if "executing the script can't" in text:  # Redis 7.0 sends no code
        return f"Redis refuses the command: {text}; grant the user permission to run it"
    if "invalid password" in text or "unauthenticated" in text:
        return f"Redis refuses the login: {text}; check the user name and password"
    if "cluster support disabled" in text:
        return "this Redis is not a cluster node: use a redis:// or rediss:// URL"
    if "unknown command" in text:
        return f"Redis refuses: {text}; redis_worker needs Redis 6.2 or later, without a proxy that supports less"
    return None


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    # The reply to an unknown command quotes its arguments: for AUTH and HELLO, the password.
    text = text.partition(", with args beginning with")[0]
    # The sentinels asked, as Python objects; positions in our scripts and in Python's C code.
    text = re.sub(r" : <redis\..*| script: \w+, on @user_script:\d+| \(_ssl\.c:\d+\)", "", text)
    return text.rstrip(".")
