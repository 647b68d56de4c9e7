"""Delayed tasks of a queue: listed, cancelled, or moved to the queue at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.ids import id_text
from redis_worker.vocabulary.limit import waits_for_a_limit
from redis_worker.vocabulary.payload import read_object

# Most tasks read or moved in one step.
_PAGE = 500
# Characters that no JSON writer escapes, so that the server can match an id without parsing JSON.
_PLAIN = re.compile(r"[\w .:@-]+", re.ASCII)


class DelayedTask(NamedTuple):
    """One delayed task or message."""

    id: str | None
    """Its id; None if it cannot be read."""
    raw: bytes
    """The task, byte for byte."""
    due: float | None
    """Due time, in seconds since the epoch, by the server's clock; None if it waits for a limit, see gate.lua."""
    member: bytes
    """The member of the sorted set."""

    @property
    def key(self) -> str:
        """A name of the delayed task."""
        return hashlib.sha256(self.member).hexdigest()[:32]


class Delayed:
    """The delayed tasks of the queue `input_key`."""

    def __init__(self, connection: Connection, input_key: str) -> None:
        self._connection = connection
        self._keys = Keys(input_key)

    async def count(self) -> int:
        """Return the number of delayed tasks."""
        return int(await self._connection.call("ZCARD", self._keys.delayed))

    async def first(self, limit: int) -> list[DelayedTask]:
        """Return the first `limit` tasks by due time."""
        found = await self._connection.call("ZRANGE", self._keys.delayed, 0, limit - 1, "WITHSCORES")
        return [_read(member, score) for member, score in with_scores(found)]

    async def find(self, ids: Collection[str]) -> list[DelayedTask]:
        """Return all tasks with one of `ids`, by due time. The time taken grows with the number of delayed tasks."""
        found = {task.member: task for id in ids async for task in self._scan(f"*{needle(id)}*") if task.id == id}
        return in_order(found.values())

    async def all(self) -> list[DelayedTask]:
        """Return all tasks, in no order."""
        return list({task.member: task async for task in self._scan("*")}.values())

    async def cancel(self, id: str | int) -> bool:
        """Cancel all tasks `id`. Returns False if none was found."""
        return bool(await self.drop(await self.find([id_text(id)])))

    async def drop(self, tasks: Sequence[DelayedTask]) -> int:
        """Delete `tasks` and their retry counts. Returns the number of those still delayed."""
        return await self._end("cancel", tasks)

    async def run(self, tasks: Sequence[DelayedTask]) -> int:
        """Append `tasks` to the queue. Returns the number of those still delayed."""
        return await self._end("run", tasks)

    async def _scan(self, pattern: str) -> AsyncGenerator[DelayedTask, None]:
        """Yield matching tasks, each at least once. By ZSCAN: paging by rank skips one when another becomes due."""
        cursor = b"0"
        while True:
            command = ("ZSCAN", self._keys.delayed, cursor, "MATCH", pattern, "COUNT", _PAGE)
            cursor, found = await self._connection.call(*command)
            for member, score in with_scores(found):
                yield _read(member, score)
            if int(cursor) == 0:
                return

    async def _end(self, how: str, tasks: Sequence[DelayedTask]) -> int:
        keys = [self._keys.delayed, self._keys.waiting, self._keys.attempts, self._keys.unique]
        count = 0
        for start in range(0, len(tasks), _PAGE):
            members = [task.member for task in tasks[start : start + _PAGE]]
            count += int(await self._connection.run("undelay", keys, [how, *members]))
        return count


class DelayedTasks(Access):
    """Access to the delayed tasks of `input_key`; `redis` is a URL, or a client that is used and not closed."""

    def __init__(self, redis: str | Client | Address, input_key: str) -> None:
        super().__init__(redis)
        self._input = input_key

    @property
    def here(self) -> Delayed:
        """The delayed tasks, for use in the running event loop."""
        return Delayed(self._connection, self._input)


def in_order(tasks: Iterable[DelayedTask]) -> list[DelayedTask]:
    """Return `tasks` by due time; at the end those that wait for a limit, the longest first."""
    return sorted(tasks, key=lambda task: (task.due is None, task.due or 0.0, task.member))


def with_scores(found: Sequence[Any]) -> list[tuple[bytes, float]]:
    """Return members and scores of a reply: flat in RESP2, pairs in RESP3; redis-py parses some of them."""
    pairs: Iterable[Any] = found
    if found and not isinstance(found[0], (list, tuple)):
        pairs = zip(found[::2], found[1::2], strict=True)
    return [(member, float(score)) for member, score in pairs]


def needle(id: str) -> str:
    """Return a text that each task with this id holds, whatever program wrote it."""
    return id if _PLAIN.fullmatch(id) else ""


def _read(member: bytes, score: float) -> DelayedTask:
    raw = member.partition(b":")[2]
    try:
        id: str | None = read_object(raw)[0]
    except Unreadable as error:
        id = error.id
    return DelayedTask(id, raw, None if waits_for_a_limit(score) else score / 1000, member)
