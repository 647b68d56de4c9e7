"""How much there is in queues, read in one call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys


class Depth(NamedTuple):
    """What was found in a queue; None where it could not be read."""

    waiting: int | None
    delayed: int | None
    dead: int | None
    head: bytes | None
    """The task that is next, as its producer wrote it; None also where there is none."""


async def read_depths(connection: Connection, queues: Iterable[str], patience: float) -> dict[str, Depth]:
    """The depth of each of `queues`. Every command takes the same time however much there is. Raises Disconnected."""
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
