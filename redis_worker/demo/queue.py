"""What the demo asks of Redis, as any onlooker could: the keys of one queue, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.vocabulary.payload import loads

T = TypeVar("T")

_BATCH = 500


class DemoQueue:
    """The queue of one processor."""

    def __init__(self, connection: Connection, processor: str) -> None:
        self._connection = connection
        self.processor = processor
        self.keys = Keys(f"demo:{processor}:input", f"demo:{processor}:output")

    async def push(self, raw_tasks: Sequence[bytes]) -> None:
        """Put these on the queue."""
        for batch in _batches(raw_tasks):
            await self._connection.call("RPUSH", self.keys.waiting, *batch)

    async def settled(self) -> int:
        """How many tasks have an answer or are dead letters."""
        answered: int = await self._connection.call("HLEN", self.keys.output)
        dead: int = await self._connection.call("LLEN", self.keys.dead)
        return answered + dead

    async def worker_of(self, pid: int) -> str | None:
        """The name under which this process is at work here; None when it is not, or not yet."""
        names = await self._connection.call("ZRANGE", self.keys.workers, 0, -1)
        return next((name for name in map(bytes.decode, names) if name.split("-")[-2] == str(pid)), None)

    async def held_by(self, worker: str) -> int:
        """How many tasks this worker has in flight."""
        count: int = await self._connection.call("LLEN", self.keys.inflight(worker))
        return count

    async def answers(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Those of `ids` that have an answer, with the answer as it stands in the output hash."""
        found: dict[str, bytes] = {}
        for batch in _batches(ids):
            raw = await self._connection.call("HMGET", self.keys.output, *batch)
            found.update((id, answer) for id, answer in zip(batch, raw, strict=True) if answer is not None)
        return found

    async def answer_count(self) -> int:
        """How many answers there are, whoever they are for."""
        count: int = await self._connection.call("HLEN", self.keys.output)
        return count

    async def dead_tasks(self) -> list[bytes]:
        """The tasks in the dead letters, as they were pushed."""
        letters = await self._connection.call("LRANGE", self.keys.dead, 0, -1)
        return [loads(letter)["raw"].encode() for letter in letters]


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), _BATCH):
        yield items[first : first + _BATCH]
