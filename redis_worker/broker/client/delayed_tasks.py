"""What is put off in a queue: listed, cancelled, or done at once."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.ids import id_text
from redis_worker.vocabulary.payload import read_object

# So many are looked at, or moved, in one step.
_PAGE = 500
# No JSON writer escapes these, so that the server can look for an id of them without knowing JSON.
_PLAIN = re.compile(r"[\w .:@-]+", re.ASCII)


class DelayedTask(NamedTuple):
    """One task, or message, that is put off."""

    id: str | None
    """Its id; None where it has none that can be read."""
    raw: bytes
    """The task as its producer wrote it."""
    due: float
    """When it is due, in seconds since the epoch, by the server's clock."""
    member: bytes
    """The task as it stands in the sorted set."""


class Delayed:
    """What is put off in the queue `input_key`."""

    def __init__(self, connection: Connection, input_key: str) -> None:
        self._connection = connection
        self._keys = Keys(input_key)

    async def count(self) -> int:
        """How many tasks are put off."""
        return int(await self._connection.call("ZCARD", self._keys.delayed))

    async def first(self, limit: int) -> list[DelayedTask]:
        """The `limit` tasks that are due first, in the order of their time."""
        found = await self._connection.call("ZRANGE", self._keys.delayed, 0, limit - 1, "WITHSCORES")
        return [_read(member, score) for member, score in _pairs(found)]

    async def find(self, ids: Collection[str]) -> list[DelayedTask]:
        """All tasks with one of `ids`, in the order of their time. It takes a time that grows with what is put off."""
        found = {task.member: task for id in ids async for task in self._scan(_pattern(id)) if task.id == id}
        return sorted(found.values(), key=lambda task: task.due)

    async def all(self) -> list[DelayedTask]:
        """All tasks, in no order."""
        return list({task.member: task async for task in self._scan("*")}.values())

    async def cancel(self, id: str | int) -> bool:
        """Cancel all tasks `id`. False where there was none."""
        return bool(await self.drop(await self.find([id_text(id)])))

    async def drop(self, tasks: Sequence[DelayedTask]) -> int:
        """Forget `tasks`, and how often they were tried. Returns how many were still put off."""
        return await self._end("cancel", tasks)

    async def run(self, tasks: Sequence[DelayedTask]) -> int:
        """Append `tasks` to the queue. Returns how many were still put off."""
        return await self._end("run", tasks)

    async def _scan(self, pattern: str) -> AsyncGenerator[DelayedTask, None]:
        """The tasks that match, each at least once. By ZSCAN: in pages by rank one is missed when another comes due."""
        cursor = b"0"
        while True:
            command = ("ZSCAN", self._keys.delayed, cursor, "MATCH", pattern, "COUNT", _PAGE)
            cursor, found = await self._connection.call(*command)
            for member, score in _pairs(found):
                yield _read(member, score)
            if int(cursor) == 0:
                return

    async def _end(self, how: str, tasks: Sequence[DelayedTask]) -> int:
        keys = [self._keys.delayed, self._keys.waiting, self._keys.attempts]
        count = 0
        for start in range(0, len(tasks), _PAGE):
            members = [task.member for task in tasks[start : start + _PAGE]]
            count += int(await self._connection.run("undelay", keys, [how, *members]))
        return count


class DelayedTasks(Access):
    """What is put off in the queue `input_key`; `redis` is a URL, or a client that is used and not closed."""

    def __init__(self, redis: str | Client, input_key: str) -> None:
        super().__init__(redis)
        self._input = input_key

    @property
    def here(self) -> Delayed:
        """The same, in the running event loop."""
        return Delayed(self._connection, self._input)


def _pairs(found: Sequence[Any]) -> list[tuple[bytes, float]]:
    """Members and scores of a reply: flat, as in RESP2, or in pairs, as in RESP3; redis-py reads some of them."""
    pairs: Iterable[Any] = found
    if found and not isinstance(found[0], (list, tuple)):
        pairs = zip(found[::2], found[1::2], strict=True)
    return [(member, float(score)) for member, score in pairs]


def _pattern(id: str) -> str:
    return f"*{id}*" if _PLAIN.fullmatch(id) else "*"


def _read(member: bytes, score: float) -> DelayedTask:
    raw = member.partition(b":")[2]
    try:
        id: str | None = read_object(raw)[0]
    except Unreadable as error:
        id = error.id
    return DelayedTask(id, raw, score / 1000, member)
