"""Queue depths, read in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.announced_priorities import lists_of


class Depth(NamedTuple):
    """Counts of one queue; None if unreadable."""

    waiting: int | None
    """The waiting tasks, of all priorities."""
    delayed: int | None
    dead: int | None
    head: bytes | None
    """The next task, as its producer wrote it; None also if the queue is empty. The first priority comes first."""


async def read_depths(connection: Connection, queues: Iterable[str], patience: float) -> dict[str, Depth]:
    """Return the depth of each queue, in constant time per queue. Raises Disconnected."""
    of_queues = [Keys(name) for name in queues]
    commands: list[tuple[str | int, ...]] = []
    for keys in of_queues:
        commands += (("ZCARD", keys.delayed), ("LLEN", keys.dead), ("ZRANGE", keys.announced, 0, -1))
        commands += (("LLEN", keys.waiting), ("LINDEX", keys.waiting, 0))
    read = await _together(connection, commands, patience)
    lists = [lists_of(keys, names or ()) for keys, names in zip(of_queues, read[2::5], strict=True)]
    seen = {keys.waiting: read[at * 5 + 3 : at * 5 + 5] for at, keys in enumerate(of_queues)}
    others = [key for some in lists for key in some if key not in seen]  # none without priorities
    found = await _together(connection, [c for key in others for c in (("LLEN", key), ("LINDEX", key, 0))], patience)
    seen |= {key: found[at * 2 : at * 2 + 2] for at, key in enumerate(others)}
    depths: dict[str, Depth] = {}
    for keys, delayed, dead, some in zip(of_queues, read[::5], read[1::5], lists, strict=True):
        counts, heads = zip(*map(seen.__getitem__, some), strict=True)
        waiting = None if None in counts else sum(counts)
        depths[keys.waiting] = Depth(waiting, delayed, dead, next(filter(None, heads), None))
    return depths


async def _together(connection: Connection, commands: Sequence[tuple[str | int, ...]], patience: float) -> list[Any]:
    """Return the replies, None for each error. Raises Disconnected."""
    replies = await connection.together(*commands, patience=patience) if commands else []
    return [None if isinstance(reply, Exception) else reply for reply in replies]
