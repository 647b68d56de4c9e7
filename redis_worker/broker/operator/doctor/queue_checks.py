"""Checks of one queue: waiting tasks, workers, dead letters, delayed tasks, order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import readable
from redis_worker.broker.connection.preflight import check_slots
from redis_worker.broker.keys import Keys, topic_of
from redis_worker.broker.operator.control import count_in_flight
from redis_worker.broker.operator.doctor.finding import Finding, fault, good, quoted, shown, span, warning
from redis_worker.broker.operator.doctor.key_checks import examine_keys
from redis_worker.vocabulary.errors import ConfigurationError, WrongType
from redis_worker.vocabulary.stamps import made_at

# A lease expired longer ago than this should have been recovered by a live worker: one default lease, in ms.
_LEASE_MS = 6000
# Workers promote within a second; a task overdue by more ms has no worker able to promote it.
_OVERDUE_MS = 5000
# Most dead and retired workers to inspect.
_WORKERS = 100
# Tasks of a queue to sample, and the most bytes of each.
_SAMPLED, _LARGEST = 9, 1_000_000
# A head newer than the tail by more seconds is not an effect of the producers' clocks.
_NEWER = 1.0


class _Seen(NamedTuple):
    """The reply of examine.lua."""

    now: int
    depth: int
    live: int
    overdue_workers: list[bytes]
    retired: list[bytes]
    dead: int
    dropped: int
    delayed: int
    overdue: int
    first_due: int
    sampled: list[bytes]
    named: list[bytes]


async def examine_queue(connection: Connection, key: str, *, cluster: bool) -> list[Finding]:
    """Return a finding for each check of the queue `key`. Raises Disconnected, and Refused without the permission."""
    keys, subject = Keys(key), f"queue {shown(key)}"
    if unusable := await _unusable(connection, keys, subject, cluster):
        return [unusable]
    names = [keys.waiting, keys.workers, keys.retired, keys.delayed, keys.dead, keys.dropped, keys.claimants]
    limits = [_LEASE_MS, _OVERDUE_MS, _WORKERS, _SAMPLED, _LARGEST]
    seen = _Seen(*await connection.run("examine", names, limits))
    stamps = _stamps(seen)
    holders, _ = readable(dict.fromkeys([*seen.overdue_workers, *seen.retired, *seen.named]))
    return [
        *await examine_keys(connection, keys, subject, holders),
        _waiting(subject, seen, stamps),
        await _workers(connection, keys, subject, seen),
        _dead(keys, subject, seen),
        _delayed(keys, subject, seen),
        _order(subject, stamps),
        *await _flows(connection, keys, subject, seen),
    ]


async def _unusable(connection: Connection, keys: Keys, subject: str, cluster: bool) -> Finding | None:
    if cluster:
        try:
            check_slots(keys)
        except ConfigurationError as error:
            return fault(subject, str(error), "use another key")
    kind = (await connection.call("TYPE", keys.waiting)).decode()
    if kind in ("list", "none"):
        return None
    remedy = f"use another key, or delete this one: redis-cli DEL {quoted(keys.waiting)}"
    return fault(subject, f"holds a {kind}, not a list", remedy)


def _stamps(seen: _Seen) -> list[float]:
    """Return the creation times of waiting tasks that have one in the past, from head to tail."""
    # A stamp beyond the error of a wrong clock is not a number of seconds.
    end = seen.now / 1000 + 86_400
    return [stamp for stamp in map(made_at, seen.sampled) if stamp is not None and stamp < end]


def _waiting(subject: str, seen: _Seen, stamps: Sequence[float]) -> Finding:
    what = f"{seen.depth:,} waiting"
    if stamps:
        what += f", the oldest sampled for {span(max(0.0, seen.now / 1000 - min(stamps)))}"
    return good(f"{subject}: waiting", what)


async def _workers(connection: Connection, keys: Keys, subject: str, seen: _Seen) -> Finding:
    subject = f"{subject}: workers"
    holders, held = await _held(connection, keys, [*seen.overdue_workers, *seen.retired])
    if held:
        some = ", ".join(holders[:3]) + (", …" if len(holders) > 3 else "")
        what = f"in flight with dead workers: {held:,} ({some})"
        if seen.live:
            remedy = "check again in a minute; if they are still there, read the logs of the live workers"
            return warning(subject, f"{what}, not yet recovered by the {seen.live} live", remedy)
        return fault(subject, f"{what}, and no live worker recovers them", _start(keys))
    if seen.depth and not seen.live:
        what = "none holds a lease, and tasks wait (at-most-once workers and consumers of your own hold none)"
        return warning(subject, what, _start(keys))
    return good(subject, f"{seen.live} live")


async def _held(connection: Connection, keys: Keys, workers: Sequence[bytes]) -> tuple[list[str], int]:
    """Return the names of those `workers` that hold tasks, and the number of these tasks."""
    holders, held = [], 0
    for name in readable(workers)[0]:
        count = 0
        with suppress(WrongType):  # examine_keys reports it
            count += await count_in_flight(connection, keys, name)
        for key in (keys.arrived(name), keys.listed(name)):
            with suppress(WrongType):
                count += int(await connection.call("LLEN", key))
        if count:
            holders.append(shown(name))
            held += count
    return holders, held


def _dead(keys: Keys, subject: str, seen: _Seen) -> Finding:
    subject = f"{subject}: dead letters"
    what = f"{seen.dead:,}"
    remedies = [f"redis-worker dead list --input {quoted(keys.waiting)}"] if seen.dead else []
    if seen.dropped:
        what += f", and {seen.dropped:,} older ones were dropped"
        remedies.append(f"raise --dead-limit; to reset the count: redis-cli DEL {quoted(keys.dropped)}")
    return warning(subject, what, "; ".join(remedies)) if remedies else good(subject, "none")


def _delayed(keys: Keys, subject: str, seen: _Seen) -> Finding:
    subject = f"{subject}: delayed"
    if not seen.overdue:
        return good(subject, f"{seen.delayed:,}")
    late = span((seen.now - seen.first_due) / 1000)
    what = f"{seen.overdue:,} of {seen.delayed:,} are overdue, the first by {late}: no worker promotes them"
    return warning(subject, what, _start(keys))


async def _flows(connection: Connection, keys: Keys, subject: str, seen: _Seen) -> list[Finding]:
    """Return a finding about the steps of flows, if there are any."""
    try:
        parked = int(await connection.call("HLEN", keys.flow))
    except WrongType as error:
        return [fault(f"{subject}: flows", str(error), f"delete the key: redis-cli DEL {quoted(keys.flow)}")]
    if not parked:
        return []
    subject, what = f"{subject}: flows", f"{parked:,} steps wait for other tasks"
    if seen.depth or seen.delayed or (await _held(connection, keys, [*seen.named, *seen.retired]))[1]:
        return [good(subject, what)]
    remedy = f"cancel them: redis-worker cancel; or purge them: redis-worker purge --input {quoted(keys.waiting)}"
    return [warning(subject, f"{what}, and there are none: removed without an answer, or never submitted", remedy)]


def _order(subject: str, stamps: Sequence[float]) -> Finding:
    subject = f"{subject}: order"
    # Delayed and requeued tasks arrive at the tail with their old creation time: an old tail alone does not
    # prove that the list grows at its head.
    falls = sum(first > second for first, second in pairwise(stamps))
    rises = sum(first < second for first, second in pairwise(stamps))
    if falls >= 2 and falls > 3 * rises and stamps[0] - stamps[-1] > _NEWER:
        what = f"last-in-first-out: the head is {span(stamps[0] - stamps[-1])} newer than the tail"
        return warning(subject, what, "have producers use RPUSH (push without --left), not LPUSH, or old tasks starve")
    return good(subject, "first-in-first-out" if rises > falls else "no sign of last-in-first-out")


def _start(keys: Keys) -> str:
    if topic := topic_of(keys.waiting):
        return f"start a worker that consumes the topic {shown(topic)}"
    return f"start a worker on this queue: redis-worker run --input {quoted(keys.waiting)} …"
