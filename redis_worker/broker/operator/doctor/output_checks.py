"""Checks of one output hash: does it only grow?"""

from __future__ import annotations

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.operator.doctor.finding import Finding, fault, good, quoted, shown, warning
from redis_worker.broker.operator.doctor.server_checks import knows

# So many results are more than wait to be read.
_MANY = 100_000
# So many of them are asked whether they expire.
_ASKED = 10


async def examine_output(connection: Connection, key: str) -> Finding:
    """The finding for the output hash `key`. Raises Disconnected, and Refused where it may not be looked at."""
    subject = f"output {shown(key)}"
    kind = (await connection.call("TYPE", key)).decode()
    if kind not in ("hash", "none"):
        remedy = f"name another key, or delete this one: redis-cli DEL {quoted(key)}"
        return fault(subject, f"holds a {kind}, not a hash", remedy)
    count = int(await connection.call("HLEN", key))
    what = f"results: {count:,}"
    if count <= _MANY:
        return good(subject, what)
    expire = await _expire(connection, key)
    if expire:
        return good(subject, f"{what}, which expire")
    how = "run workers with --result-ttl, or delete" if expire is not None else "delete"
    return warning(subject, f"{what}, and none of {_ASKED} expires", f"{how} results once read (result --delete)")


async def _expire(connection: Connection, key: str) -> bool | None:
    """Whether results expire, by a few taken at random; None where the server does not know of it."""
    if not await knows(connection, "HTTL"):
        return None
    fields = await connection.call("HRANDFIELD", key, _ASKED)
    left = await connection.call("HTTL", key, "FIELDS", len(fields), *fields)
    return any(seconds >= 0 for seconds in left)
