"""redis-py's errors in the house's words: can it be mended by trying again, and if not, what is to be done?"""

from __future__ import annotations

import re
import ssl
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

# Replies by which a server says "not now": it loads, fails over, is full, or cannot write.
_PASSING = frozenset((
    "LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "OOM", "MISCONF", "NOREPLICAS",
    "UNBLOCKED", "BUSY", "UNKILLABLE",
))  # fmt: skip
# Failures of TLS that are as they are until somebody changes a setting or a certificate.
_TLS_MISMATCH = re.compile(
    "CERTIFICATE|UNKNOWN_CA|WRONG_VERSION|PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|HANDSHAKE_FAILURE|"
    "NO_SHARED_CIPHER|UNRECOGNIZED_NAME|HTTP_REQUEST"
)
# Errors of redis-py's that say that it was used wrongly.
_DEFECTS = (exceptions.DataError,)


class UnknownScript(RedisWorkerError):
    """The server does not know the script, or has forgotten it in a restart."""


def translated(error: Exception) -> Exception:
    """`error` as Disconnected (trying again may help), Refused (it will not), or as it is (a defect)."""
    if isinstance(error, exceptions.NoScriptError):
        return UnknownScript(_text(error))
    causes = list(_causes(error))
    for cause in causes:
        if refusal := _refusal(cause):
            return refusal
    if isinstance(causes[-1], (exceptions.RedisError, OSError, EOFError)) and not isinstance(error, _DEFECTS):
        return Disconnected(_text(error))
    if isinstance(error, exceptions.RedisClusterException) and "cover" in str(error):
        return Disconnected(_text(error))  # some slots have no node yet, or none any more
    return error


def is_defect(error: Exception) -> bool:
    """Whether `error` is none of what a server, or the way to it, may do."""
    return not isinstance(translated(error), (Disconnected, Refused))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, and what redis-py has wrapped in it: so it does with TLS, Unix sockets, and a cluster's first node."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        context = cause.__context__
        wraps = isinstance(context, ssl.SSLError) or isinstance(cause, exceptions.RedisClusterException)
        cause = cause.__cause__ or (context if wraps else None)


def _refusal(error: BaseException) -> Refused | None:
    """Return `error` as a refusal where trying again cannot mend it; None where it may."""
    said = _global_refusal(error)
    if said is not None:
        return Refused(said)
    if not isinstance(error, exceptions.ResponseError) or _is_passing(error):
        return None
    text = _text(error)
    if damaged := re.search(r"\bDAMAGED (\w+) (\w+) (.*)", text):
        found, expected, key = damaged.groups()
        return DamagedKey(key, found, expected)
    said = _said(text)
    # Any other reply may be due to what is in the command: only who sent it knows whether less can be sent.
    if said is None:
        return Unacceptable(f"Redis refuses: {text}")
    return WrongType(said) if "WRONGTYPE" in text else Refused(said)


def _global_refusal(error: BaseException) -> str | None:
    """What is to be said of an error that has nothing to do with the command, and that trying again cannot mend."""
    text = _text(error)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError)):
        return f"Redis refuses the login: {text}; check the user name and password"
    if isinstance(error, MasterNotFoundError) and "AuthenticationError" in str(error):
        return "the sentinels refuse the login; give sentinel_username and sentinel_password"
    if isinstance(error, (exceptions.NoPermissionError, exceptions.AuthorizationError)):
        return f"Redis refuses the command: {text}; grant the user the right to it"
    if isinstance(error, ssl.SSLError) and _TLS_MISMATCH.search(str(error)):
        return f"no TLS connection can be made: {text}; check the certificates, and that the port is one for TLS"
    if isinstance(error, (exceptions.MovedError, exceptions.AskError, exceptions.ClusterCrossSlotError)):
        return f"Redis is a node of a cluster ({text}): name it as redis+cluster://"
    return None


def _is_passing(error: exceptions.ResponseError) -> bool:
    text = str(error)
    if "max number of clients" in text:
        return True
    # Until Redis 7 an error in a script was wrapped in another: ERR Error running script (…): … -OOM command …
    if wrapped := re.search(r"Error running script.*: -?([A-Z]{3,}) ", text):
        return wrapped[1] in _PASSING
    # redis-py takes the code off the text of those it has classes for.
    return (error.status_code or text.partition(" ")[0]) in _PASSING


def _said(text: str) -> str | None:
    """What is to be said of an error reply that redis-py has no class of its own for; None for any other."""
    if "WRONGTYPE" in text:
        return f"a key holds another type than it should: {text.partition('WRONGTYPE')[2].strip()}"
    if "executing the script can't" in text:  # in Redis 7.0, with no code
        return f"Redis refuses the command: {text}; grant the user the right to it"
    if "invalid password" in text or "unauthenticated" in text:
        return f"Redis refuses the login: {text}; check the user name and password"
    if "cluster support disabled" in text:
        return "Redis is no node of a cluster: name it as redis:// or rediss://"
    if "unknown command" in text:
        return f"Redis refuses: {text}; it must be version 6.2 or later, with no proxy before it that knows less"
    return None


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    # A server that does not know a command quotes its arguments: of AUTH and HELLO, the password.
    text = text.partition(", with args beginning with")[0]
    # The sentinels that were asked, as Python objects; places in our scripts, and in Python's.
    text = re.sub(r" : <redis\..*| script: \w+, on @user_script:\d+| \(_ssl\.c:\d+\)", "", text)
    return text.rstrip(".")
