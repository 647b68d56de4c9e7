"""Check of one output hash: its size, and the expiry of its results."""

from __future__ import annotations

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.operator.doctor.finding import Finding, fault, good, quoted, shown, warning
from redis_worker.broker.operator.doctor.server_checks import has_command

# More results than this are not only waiting for their readers.
_MANY = 100_000
# Results sampled for their expiry.
_SAMPLED = 10


async def examine_output(connection: Connection, key: str) -> Finding:
    """Return the finding for the output hash `key`. Raises Disconnected, and Refused without the permission."""
    subject = f"output {shown(key)}"
    kind = (await connection.call("TYPE", key)).decode()
    if kind not in ("hash", "none"):
        remedy = f"use another key, or delete this one: redis-cli DEL {quoted(key)}"
        return fault(subject, f"holds a {kind}, not a hash", remedy)
    count = int(await connection.call("HLEN", key))
    what = f"results: {count:,}"
    if count <= _MANY:
        return good(subject, what)
    expire = await _expire(connection, key)
    if expire:
        return good(subject, f"{what}, which expire")
    how = "run workers with --result-ttl, or delete" if expire is not None else "delete"
    return warning(subject, f"{what}, and none of {_SAMPLED} expires", f"{how} results once read (result --delete)")


async def _expire(connection: Connection, key: str) -> bool | None:
    """Return True if any of a few random results expires; None if the server does not support expiry."""
    if not await has_command(connection, "HTTL"):
        return None
    fields = await connection.call("HRANDFIELD", key, _SAMPLED)
    left = await connection.call("HTTL", key, "FIELDS", len(fields), *fields)
    return any(seconds >= 0 for seconds in left)
