"""Access to the keys of one queue in Redis, as any other client has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys, tasks_among
from redis_worker.vocabulary.payload import loads

T = TypeVar("T")

_BATCH = 500


class DemoQueue:
    """The queue of one processor."""

    def __init__(self, connection: Connection, processor: str, keys: Keys | None = None) -> None:
        """`keys` replaces those of the demo."""
        self._connection = connection
        self.processor = processor
        self.keys = keys or Keys(f"demo:{processor}:input", f"demo:{processor}:output")

    async def push(self, raw_tasks: Sequence[bytes]) -> None:
        """Push tasks to the queue."""
        for batch in _batches(raw_tasks):
            await self._connection.call("RPUSH", self.keys.waiting, *batch)

    async def settled(self) -> int:
        """Return the number of tasks with a result or a dead letter."""
        answered: int = await self._connection.call("HLEN", self.keys.output)
        dead: int = await self._connection.call("LLEN", self.keys.dead)
        return answered + dead

    async def worker_of(self, pid: int) -> str | None:
        """Return the worker name of the process `pid`; None if it does not work on this queue, or not yet."""
        names = await self._connection.call("ZRANGE", self.keys.workers, 0, -1)
        return next((name for name in map(bytes.decode, names) if name.split("-")[-2] == str(pid)), None)

    async def held_by(self, worker: str) -> int:
        """Return the number of tasks that `worker` has in flight."""
        return tasks_among(await self._connection.call("HLEN", self.keys.inflight(worker)))

    async def answers(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return id -> result, as stored in the output hash, for those of `ids` that have one."""
        found: dict[str, bytes] = {}
        for batch in _batches(ids):
            raw = await self._connection.call("HMGET", self.keys.output, *batch)
            found.update((id, answer) for id, answer in zip(batch, raw, strict=True) if answer is not None)
        return found

    async def answer_count(self) -> int:
        """Return the number of results in the output hash, of any task."""
        count: int = await self._connection.call("HLEN", self.keys.output)
        return count

    async def dead_tasks(self) -> list[bytes]:
        """Return the tasks of the dead letters, as pushed."""
        letters = await self._connection.call("LRANGE", self.keys.dead, 0, -1)
        return [loads(letter)["raw"].encode() for letter in letters]


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), _BATCH):
        yield items[first : first + _BATCH]
