"""Queue depths, read in one call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys


class Depth(NamedTuple):
    """Counts of one queue; None if unreadable."""

    waiting: int | None
    delayed: int | None
    dead: int | None
    head: bytes | None
    """The next task, as its producer wrote it; None also if the queue is empty."""


async def read_depths(connection: Connection, queues: Iterable[str], patience: float) -> dict[str, Depth]:
    """Return the depth of each queue, in constant time per queue. Raises Disconnected."""
    names = list(queues)
    commands: list[tuple[str | int, ...]] = []
    for name in names:
        keys = Keys(name)
        commands += (
            ("LLEN", keys.waiting),
            ("ZCARD", keys.delayed),
            ("LLEN", keys.dead),
            ("LINDEX", keys.waiting, 0),
        )
    if not commands:
        return {}
    replies = await connection.together(*commands, patience=patience)
    read = [None if isinstance(reply, Exception) else reply for reply in replies]
    return {name: Depth(*read[at * 4 : at * 4 + 4]) for at, name in enumerate(names)}
