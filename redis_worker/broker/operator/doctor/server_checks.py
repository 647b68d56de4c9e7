"""Checks of the server itself: how far it is, what it can do, whether it keeps what it is given.

Of a cluster they are made at one node.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.connection.preflight import OLDEST
from redis_worker.broker.operator.doctor.finding import Finding, fault, good, looked_at, warning
from redis_worker.vocabulary.errors import Refused

# How long a round trip may take before it is worth a warning, in seconds.
_NEAR = 0.005
_ROUND_TRIPS = 11
# How far the clocks may be apart, in seconds.
_SKEW = 1.0
# The part of its memory limit from which on a server is nearly full.
_FULL = 0.8


class Examined:
    """The server under examination."""

    def __init__(self, connection: Connection, *, cluster: bool, topics: int) -> None:
        """`topics`: how many are known, so that what only they need can be told."""
        self.connection = connection
        self.cluster = cluster
        self.topics = topics
        self._info: dict[str, Any] = {}

    async def says(self, name: str) -> Any:
        """The value of `name` in INFO. Raises Refused where there is none."""
        if not self._info:
            self._info = await self.connection.info("default")
        if name not in self._info:
            raise Refused(f"INFO does not tell {name}")
        return self._info[name]

    async def setting(self, name: str) -> str:
        """The value of a setting. Raises Refused where the server does not tell it."""
        settings = await self.connection.at_one_server("CONFIG GET", name)
        if name not in settings:
            raise Refused(f"CONFIG GET does not tell {name}")
        return str(settings[name])

    async def round_trip(self) -> tuple[float, float]:
        """How long one takes, and by how much the server's clock is ahead of ours, both in seconds.

        By TIME, not PING: a server that cannot write to its disk refuses PING.
        """
        wall, begun = time.time(), time.perf_counter()
        seconds, microseconds = await self.connection.at_one_server("TIME")
        took = time.perf_counter() - begun
        return took, int(seconds) + int(microseconds) / 1e6 - (wall + took / 2)


async def examine_server(server: Examined) -> list[Finding]:
    """A finding for each check, a few for some. Raises Disconnected."""
    checks: list[tuple[str, Callable[[Examined], Awaitable[Finding | list[Finding]]]]] = [
        ("latency and clock", _distance),
        ("version", _version),
        ("role", _role),
        ("result expiry", _expiry),
        ("topics", _tracking),
        ("eviction", _eviction),
        ("memory", _memory),
        ("persistence", _persistence),
        ("last save", _last_save),
    ]
    findings: list[Finding] = []
    for subject, check in checks:
        findings += await looked_at(subject, partial(check, server))
    if server.cluster:
        findings = [finding._replace(subject=f"{finding.subject} (one node)") for finding in findings]
    return findings


async def knows(connection: Connection, command: str) -> bool:
    """Whether the server has a command. Raises Disconnected or Refused."""
    return any(await connection.at_one_server("COMMAND INFO", command))


async def _distance(server: Examined) -> list[Finding]:
    """Latency and clock: the clocks are compared by the quickest of the round trips, which says most exactly."""
    trips = [await server.round_trip() for _ in range(_ROUND_TRIPS)]
    return [_latency(statistics.median(took for took, _ in trips)), _clock(*min(trips))]


def _latency(median: float) -> Finding:
    what = f"a round trip takes {median * 1000:.2g} ms (median of {_ROUND_TRIPS})"
    if median <= _NEAR:
        return good("latency", what)
    return warning("latency", what, "run workers near the server; a higher --concurrency makes up for some of it")


def _clock(took: float, ahead: float) -> Finding:
    if abs(ahead) - took / 2 <= _SKEW:
        return good("clock", f"within {_SKEW:g} s of this machine's")
    return warning(
        "clock",
        f"the server's is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's: what is put off "
        "until a time, and ages by emit_ts, are as wrong; leases are not, they go by the server's",
        "synchronise both machines, by NTP",
    )


async def _version(server: Examined) -> Finding:
    version = str(await server.says("redis_version"))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    try:
        name = f"Valkey {await server.says('valkey_version')}"
    except Refused:
        name = f"Redis {version}"
    if numbers < OLDEST:
        return fault("version", f"{name} is too old", "upgrade to Redis 6.2 or later, or Valkey")
    return good("version", name)


async def _role(server: Examined) -> Finding:
    role = str(await server.says("role"))
    if role == "slave":
        return fault("role", "a replica, which takes no writes", "name its master, or redis+sentinel://")
    return good("role", role)


async def _expiry(server: Examined) -> Finding:
    if not await knows(server.connection, "HEXPIRE"):
        return good("result expiry", "not here: --result-ttl needs HEXPIRE (Redis 7.4, Valkey 9)")
    return good("result expiry", "the server has HEXPIRE, so --result-ttl can be used")


async def _tracking(server: Examined) -> Finding:
    if server.cluster:
        return good("topics", f"known: {server.topics}; in Redis Cluster their workers poll, 10 times a second")
    refusals = [
        reply
        for reply in await server.connection.together(
            ("CLIENT", "TRACKING", "ON"), ("CLIENT", "TRACKING", "OFF"), patience=PATIENCE
        )
        if isinstance(reply, Exception)
    ]
    if not refusals:
        return good("topics", f"known: {server.topics}; the server tells their workers of messages (CLIENT TRACKING)")
    what = f"known: {server.topics}; their workers poll, 10 times a second: {refusals[0]}"
    if not server.topics:
        return good("topics", what)
    return warning("topics", what, "ACL SETUSER <user> +client|tracking")


async def _eviction(server: Examined) -> Finding:
    policy, limit = str(await server.says("maxmemory_policy")), int(await server.says("maxmemory"))
    if policy == "noeviction":
        return good("eviction", "noeviction")
    # Queues have no time to live; the counts of attempts have.
    victims = "counts of attempts" if policy.startswith("volatile-") else "tasks"
    what = f"the policy is {policy}: the server may drop {victims} when its memory is full"
    remedy = "CONFIG SET maxmemory-policy noeviction, and the same in the server's configuration"
    if limit:
        return fault("eviction", what, remedy)
    return warning("eviction", f"{what} (maxmemory is not set, so far)", remedy)


async def _memory(server: Examined) -> Finding:
    used, limit = int(await server.says("used_memory")), int(await server.says("maxmemory"))
    if not limit:
        return good("memory", f"{_mib(used)} used, no maxmemory")
    what = f"{_mib(used)} used of {_mib(limit)} ({used / limit:.0%})"
    remedy = "raise maxmemory, add workers, or delete results and dead letters that are not needed"
    if used >= limit:
        return fault("memory", f"{what}: the server takes no more tasks or results, or drops others", remedy)
    return warning("memory", what, remedy) if used > _FULL * limit else good("memory", what)


async def _persistence(server: Examined) -> Finding:
    if int(await server.says("aof_enabled")):
        how = await server.setting("appendfsync")
        if how == "no":
            return warning(
                "persistence",
                "AOF, with appendfsync no: when the machine fails, what the system has not written is lost",
                "CONFIG SET appendfsync everysec, and the same in the server's configuration",
            )
        cost = "nothing is lost with the machine" if how == "always" else "a second may be lost with the machine"
        return good("persistence", f"AOF, with appendfsync {how}: {cost}")
    if points := await server.setting("save"):
        return good("persistence", f"RDB (save {points}): a crash loses what came after the last save; AOF keeps more")
    return warning(
        "persistence",
        "neither AOF nor RDB: a restart of the server loses everything",
        "CONFIG SET appendonly yes, and the same in the server's configuration",
    )


async def _last_save(server: Examined) -> Finding:
    for name, what in (("aof_last_write_status", "write to the AOF"), ("rdb_last_bgsave_status", "RDB save")):
        if (status := await server.says(name)) != "ok":
            return fault(
                "last save",
                f"the last {what} failed ({name}: {status})",
                "look at the server's log; most often its disk is full, or its folder may not be written to",
            )
    return good("last save", "succeeded, or there was none")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
