"""A list of dead letters of messages that did not come from Redis."""

from __future__ import annotations

from collections.abc import Sequence

from redis_worker.broker.connection.address import Client, address_of
from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.dead_letter import dead_letter
from redis_worker.vocabulary.errors import Unacceptable
from redis_worker.vocabulary.task import Outcome


class DeadList:
    """The dead letters of the list `name`, in Redis; `redis` is a URL, or a client that stays open."""

    def __init__(self, redis: str | Client, name: str, limit: int, worker: str) -> None:
        """The oldest letters beyond `limit` are dropped, and counted. Raises ConfigurationError."""
        self._address = address_of(redis)
        self._given = None if isinstance(redis, str) else redis
        self._keys = Keys(name)
        self._limit = limit
        self._worker = worker
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Connect. Raises Disconnected or Refused."""
        if self._connection is None:
            self._connection = Connection(self._given or self._address.open(), owned=self._given is None, lasting=True)
        await self._connection.ping(PATIENCE)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Write a letter for each of `outcomes`; one that is too large is cut. Raises Disconnected or Refused."""
        try:
            await self._bury(outcomes)
        except Unacceptable:
            for outcome in outcomes:
                await self._bury([outcome], cut=True)

    async def _bury(self, outcomes: Sequence[Outcome], *, cut: bool = False) -> None:
        assert self._connection is not None, "it is open"
        letters = [dead_letter(outcome, self._worker, cut=cut) for outcome in outcomes]
        await self._connection.run("bury", [self._keys.dead, self._keys.dropped], [self._limit, 0, *letters])
