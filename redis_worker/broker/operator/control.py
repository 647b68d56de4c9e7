"""Control of a queue's waiting tasks: pause, resume, peek, purge."""

from __future__ import annotations

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import readable
from redis_worker.broker.keys import Keys, tasks_among
from redis_worker.broker.queue.announced_priorities import announced_lists
from redis_worker.broker.queue.large_tasks import numbers_in_bundles, read_bundle


async def tasks_in_flight(connection: Connection, keys: Keys, worker: str, limit: int | None = None) -> list[bytes]:
    """Return the first tasks in flight of `worker`, in the order of their claim. Raises Disconnected or Refused."""
    key = keys.inflight(worker)
    bundles = await numbers_in_bundles(connection, keys, worker)
    bundled = {number: first for first, numbers in bundles.items() for number in numbers}
    numbers = {int(field) for field in await connection.call("HKEYS", key) if field.isdigit()}
    chosen = sorted(numbers | bundled.keys())[:limit]
    single = [number for number in chosen if number not in bundled]
    found = dict(zip(single, await connection.call("HMGET", key, *single) if single else [], strict=True))
    for first in {bundled[number] for number in chosen if number in bundled}:
        found |= await read_bundle(connection, keys, worker, first)
    return [raw for number in chosen if (raw := found.get(number)) is not None]


async def count_in_flight(connection: Connection, keys: Keys, worker: str) -> int:
    """Return the number of tasks in flight of `worker`. Raises Disconnected or Refused."""
    single = tasks_among(await connection.call("HLEN", keys.inflight(worker)))
    return single + sum(map(len, (await numbers_in_bundles(connection, keys, worker)).values()))


class QueueControl(Access):
    """Control of the queue `input_key`; `redis` is a URL, or a client that stays open.

    Every call raises Disconnected when Redis is unreachable and Refused when it rejects the command.
    """

    def __init__(self, redis: str | Client | Address, input_key: str) -> None:
        self._keys = Keys(input_key)
        super().__init__(redis)

    async def pause(self) -> bool:
        """Stop all claims until `resume`. Return False if the queue was already paused."""
        return bool(await self._connection.call("SET", self._keys.paused, 1, "NX"))

    async def resume(self) -> bool:
        """End a pause. Return False if the queue was not paused."""
        return bool(await self._connection.call("DEL", self._keys.paused))

    async def count(self) -> int:
        """Return the number of waiting tasks, of all priorities."""
        lists = await announced_lists(self._connection, self._keys)
        return sum([int(await self._connection.call("LLEN", key)) for key in lists])

    async def peek(self, limit: int) -> list[bytes]:
        """Return the first `limit` waiting tasks, in claim order, as pushed; those of the first priority first."""
        tasks: list[bytes] = []
        for key in await announced_lists(self._connection, self._keys):
            if len(tasks) < limit:
                tasks += await self._connection.call("LRANGE", key, 0, limit - len(tasks) - 1)
        return tasks

    async def in_flight(self, limit: int) -> tuple[list[bytes], int]:
        """Return up to `limit` tasks in flight, as pushed, worker by worker, and the number of all."""
        tasks: list[bytes] = []
        count = 0
        for worker in readable(await self._connection.call("ZRANGE", self._keys.workers, 0, -1))[0]:
            count += await count_in_flight(self._connection, self._keys, worker)
            tasks += await tasks_in_flight(self._connection, self._keys, worker, limit - len(tasks))
        return tasks, count

    async def purge(self) -> int:
        """Delete all waiting tasks atomically and return their number; in flight, delayed and dead ones stay."""
        return int(await self._connection.run("purge", [self._keys.waiting, self._keys.unique], []))
