"""Checks of the server: latency, clock, capabilities, memory, persistence.

In a cluster they run on one node.
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
from redis_worker.broker.operator.doctor.finding import Finding, fault, findings_of, good, warning
from redis_worker.vocabulary.errors import Refused

# Round trips longer than this get a warning, in seconds.
_NEAR = 0.005
_ROUND_TRIPS = 11
# Tolerated difference between the clocks, in seconds.
_SKEW = 1.0
# The fraction of maxmemory above which a server is nearly full.
_FULL = 0.8


class ExaminedServer:
    """The server under examination."""

    def __init__(self, connection: Connection, *, cluster: bool, topics: int) -> None:
        """`topics` is the number of known topics; without any, some findings need no warning."""
        self.connection = connection
        self.cluster = cluster
        self.topics = topics
        self._info: dict[str, Any] = {}

    async def info(self, name: str) -> Any:
        """Return the value of `name` in INFO. Raises Refused if missing."""
        if not self._info:
            self._info = await self.connection.info("default")
        if name not in self._info:
            raise Refused(f"INFO does not report {name}")
        return self._info[name]

    async def setting(self, name: str) -> str:
        """Return the value of a setting. Raises Refused if the server does not report it."""
        settings = await self.connection.at_one_server("CONFIG GET", name)
        if name not in settings:
            raise Refused(f"CONFIG GET does not report {name}")
        return str(settings[name])

    async def round_trip(self) -> tuple[float, float]:
        """Return the duration of a round trip, and the lead of the server's clock, both in seconds.

        It uses TIME, because a server that cannot write to its disk refuses PING.
        """
        wall, begun = time.time(), time.perf_counter()
        seconds, microseconds = await self.connection.at_one_server("TIME")
        took = time.perf_counter() - begun
        return took, int(seconds) + int(microseconds) / 1e6 - (wall + took / 2)


async def examine_server(server: ExaminedServer) -> list[Finding]:
    """Return the findings of all server checks. Raises Disconnected."""
    checks: list[tuple[str, Callable[[ExaminedServer], Awaitable[Finding | list[Finding]]]]] = [
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
        findings += await findings_of(subject, partial(check, server))
    if server.cluster:
        findings = [finding._replace(subject=f"{finding.subject} (one node)") for finding in findings]
    return findings


async def has_command(connection: Connection, command: str) -> bool:
    """Return True if the server has `command`. Raises Disconnected or Refused."""
    return any(await connection.at_one_server("COMMAND INFO", command))


async def _distance(server: ExaminedServer) -> list[Finding]:
    """Measure latency and clock; the shortest round trip gives the most exact clock comparison."""
    trips = [await server.round_trip() for _ in range(_ROUND_TRIPS)]
    return [_latency(statistics.median(took for took, _ in trips)), _clock(*min(trips))]


def _latency(median: float) -> Finding:
    what = f"a round trip takes {median * 1000:.2g} ms (median of {_ROUND_TRIPS})"
    if median <= _NEAR:
        return good("latency", what)
    return warning("latency", what, "run workers near the server; a higher --concurrency compensates in part")


def _clock(took: float, ahead: float) -> Finding:
    if abs(ahead) - took / 2 <= _SKEW:
        return good("clock", f"within {_SKEW:g} s of this machine's")
    return warning(
        "clock",
        f"the server's is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's: times of --at and "
        "ages by emit_ts are off by as much; leases are not, they use the server's clock",
        "synchronise both machines by NTP",
    )


async def _version(server: ExaminedServer) -> Finding:
    version = str(await server.info("redis_version"))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    try:
        name = f"Valkey {await server.info('valkey_version')}"
    except Refused:
        name = f"Redis {version}"
    if numbers < OLDEST:
        return fault("version", f"{name} is too old", "upgrade to Redis 6.2 or later, or Valkey")
    return good("version", name)


async def _role(server: ExaminedServer) -> Finding:
    role = str(await server.info("role"))
    if role == "slave":
        return fault("role", "a replica, which accepts no writes", "connect to its master, or use redis+sentinel://")
    return good("role", role)


async def _expiry(server: ExaminedServer) -> Finding:
    if not await has_command(server.connection, "HEXPIRE"):
        return good("result expiry", "not supported: --result-ttl needs HEXPIRE (Redis 7.4, Valkey 9)")
    return good("result expiry", "the server has HEXPIRE, so --result-ttl can be used")


async def _tracking(server: ExaminedServer) -> Finding:
    if server.cluster:
        return good("topics", f"known: {server.topics}; in Redis Cluster their workers poll 10 times a second")
    refusals = [
        reply
        for reply in await server.connection.together(
            ("CLIENT", "TRACKING", "ON"), ("CLIENT", "TRACKING", "OFF"), patience=PATIENCE
        )
        if isinstance(reply, Exception)
    ]
    if not refusals:
        return good(
            "topics", f"known: {server.topics}; the server notifies their workers of messages (CLIENT TRACKING)"
        )
    what = f"known: {server.topics}; their workers poll 10 times a second: {refusals[0]}"
    if not server.topics:
        return good("topics", what)
    return warning("topics", what, "ACL SETUSER <user> +client|tracking")


async def _eviction(server: ExaminedServer) -> Finding:
    policy, limit = str(await server.info("maxmemory_policy")), int(await server.info("maxmemory"))
    if policy == "noeviction":
        return good("eviction", "noeviction")
    # The counts of attempts have a time to live; queues have none.
    victims = "counts of attempts" if policy.startswith("volatile-") else "tasks"
    what = f"the policy is {policy}: the server may evict {victims} when its memory is full"
    remedy = "CONFIG SET maxmemory-policy noeviction, and set it in the server's configuration too"
    if limit:
        return fault("eviction", what, remedy)
    return warning("eviction", f"{what} (maxmemory is not set yet)", remedy)


async def _memory(server: ExaminedServer) -> Finding:
    used, limit = int(await server.info("used_memory")), int(await server.info("maxmemory"))
    if not limit:
        return good("memory", f"{_mib(used)} used, no maxmemory")
    what = f"{_mib(used)} used of {_mib(limit)} ({used / limit:.0%})"
    remedy = "raise maxmemory, add workers, or delete unneeded results and dead letters"
    if used >= limit:
        return fault("memory", f"{what}: the server accepts no more tasks or results, or evicts others", remedy)
    return warning("memory", what, remedy) if used > _FULL * limit else good("memory", what)


async def _persistence(server: ExaminedServer) -> Finding:
    if int(await server.info("aof_enabled")):
        how = await server.setting("appendfsync")
        if how == "no":
            return warning(
                "persistence",
                "AOF, with appendfsync no: a failure of the machine loses data not yet written by the system",
                "CONFIG SET appendfsync everysec, and set it in the server's configuration too",
            )
        cost = "no data" if how == "always" else "up to a second of data"
        return good("persistence", f"AOF, with appendfsync {how}: a failure of the machine loses {cost}")
    if points := await server.setting("save"):
        return good("persistence", f"RDB (save {points}): a crash loses all data since the last save; AOF keeps more")
    return warning(
        "persistence",
        "neither AOF nor RDB: a restart of the server loses everything",
        "CONFIG SET appendonly yes, and set it in the server's configuration too",
    )


async def _last_save(server: ExaminedServer) -> Finding:
    for name, what in (("aof_last_write_status", "write to the AOF"), ("rdb_last_bgsave_status", "RDB save")):
        if (status := await server.info(name)) != "ok":
            return fault(
                "last save",
                f"the last {what} failed ({name}: {status})",
                "read the server's log; most often its disk is full, or its folder is not writable",
            )
    return good("last save", "succeeded, or none so far")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
