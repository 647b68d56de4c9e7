"""Errors of asyncpg and of PostgreSQL, by the remedy they need: wait, mend the database, or leave out a row."""

from __future__ import annotations

import re
import ssl
from typing import Any

import asyncpg

from redis_worker.vocabulary.error_text import cut, error_text
from redis_worker.vocabulary.errors import Disconnected, RedisWorkerError, Refused, Reject

# Classes of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html) that another try may outlive:
# connection, transaction rollback, resources, operator intervention, system error, and "read only" after a failover.
_PASSING = ("08", "40", "53", "55", "57", "58", "25006", "25P03")
# Classes that concern the statement, the login, the database or the server, not the content of a row.
_PERMANENT = ("0A", "0B", "0L", "0P", "25", "26", "28", "2D", "34", "3B", "3D", "3F", "42", "F0", "HV", "XX")
# The place in an array, which is the batch.
_PLACE = re.compile(r"^invalid array element at index \d+: ")
# Serialisation failure, deadlock, lock not available.
_CONFLICTS = ("40001", "40P01", "55P03")


class Conflict(Disconnected):
    """A transaction that lost against another one: the same again, at once, most often succeeds."""


class Unfit(RedisWorkerError):
    """A statement refused for its content: without the row at fault it may be accepted. The text is the reason."""

    def __init__(self, reason: str, argument: int | None = None, cause: str = "") -> None:
        """`argument` is the number of the parameter that the driver could not encode, and `cause` the reason."""
        super().__init__(reason)
        self.argument = argument
        self.cause = cause


class RowRefused(Reject):
    """Raised by `UpsertSink.add`: the database refuses the row. The text is the database's reason.

    It is a Reject: a processor that lets it pass fails its task without retries, with a dead letter.
    """


def translated(error: Exception, place: str) -> Exception:
    """Return the error of this library for one that asyncpg raised; `place` names the database without passwords."""
    if isinstance(error, RedisWorkerError):
        return error
    if isinstance(error, asyncpg.PostgresError) and (code := error.sqlstate):
        return _by_code(error, code, place)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refused(f"the certificate of PostgreSQL at {place} is not accepted: {error.verify_message}")
    if isinstance(error, TimeoutError):
        return Disconnected(f"PostgreSQL at {place} does not answer in time")
    if isinstance(error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return Disconnected(f"PostgreSQL at {place} cannot be reached: {error_text(error)}")
    if isinstance(error, (ValueError, TypeError, OverflowError)):
        return Unfit(error_text(error))
    return error


def _by_code(error: Any, code: str, place: str) -> Exception:
    message = cut(": ".join(filter(None, (error.message or error_text(error), error.detail))))
    if isinstance(error, asyncpg.DataError) and error.message is None:  # asyncpg's own
        return _unencodable(error)
    if code in _CONFLICTS:
        return Conflict(f"PostgreSQL at {place}: {message}")
    if code.startswith(_PASSING):
        return Disconnected(f"PostgreSQL at {place} cannot be used now: {message}")
    if code.startswith(("28", "3D")):
        return Refused(f"PostgreSQL at {place} refuses the login: {message}")
    if code.startswith(_PERMANENT):
        return Refused(f"PostgreSQL at {place} refuses: {message}")
    return Unfit(message)


def _unencodable(error: Exception) -> Unfit:
    """Return the reason without the whole array, which asyncpg quotes."""
    text = str(error)
    number = text.partition("query argument $")[2].partition(":")[0]
    cause = error_text(error.__cause__) if error.__cause__ else text
    cause = _PLACE.sub("", cause)
    return Unfit(cut(cause), int(number) if number.isdecimal() else None, cut(cause))
