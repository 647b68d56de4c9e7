"""Checks of one queue: what waits and since when, who works on it, what nobody brings back, in which order it goes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import readable
from redis_worker.broker.connection.preflight import check_slots
from redis_worker.broker.keys import Keys, topic_of
from redis_worker.broker.operator.doctor.finding import Finding, fault, good, quoted, shown, span, warning
from redis_worker.broker.operator.doctor.key_checks import examine_keys
from redis_worker.vocabulary.errors import ConfigurationError, WrongType
from redis_worker.vocabulary.stamps import made_at

# A lease that ended so long ago has outlasted the sweeps of others: one lease, by default, in ms.
_LEASE_MS = 6000
# Workers promote within a second; so late, in ms, there is none, or it cannot.
_OVERDUE_MS = 5000
# So many dead and retired workers are looked at.
_WORKERS = 100
# So many tasks of a queue are looked at, of so many bytes at the most.
_LOOKED_AT, _LARGEST = 9, 1_000_000
# When the head is newer than the tail by so much, in seconds, it is not by the clocks of several producers.
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
    looked_at: list[bytes]
    named: list[bytes]


async def examine_queue(connection: Connection, key: str, *, cluster: bool) -> list[Finding]:
    """A finding for each check of the queue `key`. Raises Disconnected, and Refused where it may not be looked at."""
    keys, subject = Keys(key), f"queue {shown(key)}"
    if unusable := await _unusable(connection, keys, subject, cluster):
        return [unusable]
    names = [keys.waiting, keys.workers, keys.retired, keys.delayed, keys.dead, keys.dropped, keys.claimants]
    limits = [_LEASE_MS, _OVERDUE_MS, _WORKERS, _LOOKED_AT, _LARGEST]
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
    ]


async def _unusable(connection: Connection, keys: Keys, subject: str, cluster: bool) -> Finding | None:
    if cluster:
        try:
            check_slots(keys)
        except ConfigurationError as error:
            return fault(subject, str(error), "choose another key")
    kind = (await connection.call("TYPE", keys.waiting)).decode()
    if kind in ("list", "none"):
        return None
    remedy = f"name another key, or delete this one: redis-cli DEL {quoted(keys.waiting)}"
    return fault(subject, f"holds a {kind}, not a list", remedy)


def _stamps(seen: _Seen) -> list[float]:
    """When tasks that wait were made or published, from head to tail; of those that say so, in the past."""
    # What lies ahead of the clock by more than a wrong one would is no number of seconds.
    end = seen.now / 1000 + 86_400
    return [stamp for stamp in map(made_at, seen.looked_at) if stamp is not None and stamp < end]


def _waiting(subject: str, seen: _Seen, stamps: Sequence[float]) -> Finding:
    what = f"{seen.depth:,} waiting"
    if stamps:
        what += f", the oldest looked at for {span(max(0.0, seen.now / 1000 - min(stamps)))}"
    return good(f"{subject}: waiting", what)


async def _workers(connection: Connection, keys: Keys, subject: str, seen: _Seen) -> Finding:
    subject = f"{subject}: workers"
    holders, held = await _held(connection, keys, [*seen.overdue_workers, *seen.retired])
    if held:
        some = ", ".join(holders[:3]) + (", …" if len(holders) > 3 else "")
        what = f"in flight with dead workers: {held:,} ({some})"
        if seen.live:
            remedy = "look again in a minute; if they are still there, look at the logs of the live workers"
            return warning(subject, f"{what}, which the live ones ({seen.live}) have not returned yet", remedy)
        return fault(subject, f"{what}, which nobody returns", _start(keys))
    if seen.depth and not seen.live:
        what = "none holds a lease, and tasks wait (with --delivery at-most-once, or a consumer of your own, none does)"
        return warning(subject, what, _start(keys))
    return good(subject, f"{seen.live} live")


async def _held(connection: Connection, keys: Keys, workers: Sequence[bytes]) -> tuple[list[str], int]:
    """Which of `workers` hold tasks, and how many."""
    holders, held = [], 0
    for name in readable(workers)[0]:
        count = 0
        for key in (keys.inflight(name), keys.arrived(name)):
            with suppress(WrongType):  # which is a finding of its own
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
        remedies.append(f"a higher --dead-limit; to count anew, redis-cli DEL {quoted(keys.dropped)}")
    return warning(subject, what, "; ".join(remedies)) if remedies else good(subject, "none")


def _delayed(keys: Keys, subject: str, seen: _Seen) -> Finding:
    subject = f"{subject}: delayed"
    if not seen.overdue:
        return good(subject, f"{seen.delayed:,}")
    late = span((seen.now - seen.first_due) / 1000)
    what = f"{seen.overdue:,} of {seen.delayed:,} are overdue, the first by {late}: no worker promotes them"
    return warning(subject, what, _start(keys))


def _order(subject: str, stamps: Sequence[float]) -> Finding:
    subject = f"{subject}: order"
    # Tasks that were put off or requeued come to the tail with the time they were made at: it takes more
    # than an old tail to tell that the list grows at its head.
    falls = sum(first > second for first, second in pairwise(stamps))
    rises = sum(first < second for first, second in pairwise(stamps))
    if falls >= 2 and falls > 3 * rises and stamps[0] - stamps[-1] > _NEWER:
        what = f"last-in-first-out: the head is {span(stamps[0] - stamps[-1])} newer than the tail"
        return warning(subject, what, "have producers use RPUSH (push without --left), not LPUSH, or old tasks starve")
    return good(subject, "first-in-first-out" if rises > falls else "nothing tells that it is not first-in-first-out")


def _start(keys: Keys) -> str:
    if topic := topic_of(keys.waiting):
        return f"start a worker that consumes the topic {shown(topic)}"
    return f"start a worker on this queue: redis-worker run --input {quoted(keys.waiting)} …"
