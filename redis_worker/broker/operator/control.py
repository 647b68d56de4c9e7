"""An operator's hold on what waits in a queue: pause it, resume it, look at it, empty it."""

from __future__ import annotations

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Client
from redis_worker.broker.keys import Keys


class QueueControl(Access):
    """The queue `input_key`; `redis` is a URL, or a client that is used and not closed.

    Every call raises Disconnected when Redis cannot be reached and Refused when it says no.
    """

    def __init__(self, redis: str | Client, input_key: str) -> None:
        self._keys = Keys(input_key)
        super().__init__(redis)

    async def pause(self) -> bool:
        """Have no worker claim anything until `resume`. False when the queue was paused already."""
        return bool(await self._connection.call("SET", self._keys.paused, 1, "NX"))

    async def resume(self) -> bool:
        """End a pause. False when there was none."""
        return bool(await self._connection.call("DEL", self._keys.paused))

    async def count(self) -> int:
        """How many tasks wait."""
        return int(await self._connection.call("LLEN", self._keys.waiting))

    async def peek(self, limit: int) -> list[bytes]:
        """The first `limit` tasks that wait, in the order they will be claimed in, as they were pushed."""
        return list(await self._connection.call("LRANGE", self._keys.waiting, 0, limit - 1))

    async def purge(self) -> int:
        """Delete all tasks that wait, in one step; what is in flight, put off or dead stays. How many."""
        return int(await self._connection.run("purge", [self._keys.waiting], []))
