"""Access to Redis for occasional calls: through own connections, or a caller's client."""

from __future__ import annotations

import asyncio
import os
from typing import Self

from redis_worker.broker.client.per_loop import PerLoop
from redis_worker.broker.connection.address import Address, Client, address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import QUEUES, TOPICS, Keys, topic_list, topic_of
from redis_worker.vocabulary.errors import Disconnected, Refused


class Access:
    """Access by a URL, or by a client that is used and not closed; an `async with` block closes it at its end.

    It may be created anywhere and used in any event loop, thread or process: each loop has a separate connection.
    A client passed in serves the loop of the first call; other loops and processes get connections of their own.
    """

    def __init__(self, redis: str | Client | Address) -> None:
        """Raises ConfigurationError if the URL is not valid."""
        self._address = redis if isinstance(redis, Address) else address_of(redis)
        self._given = None if isinstance(redis, (str, Address)) else redis
        self._client_loop: asyncio.AbstractEventLoop | None = None
        """The loop that uses the client passed in."""
        self._process = os.getpid()
        self._connections = PerLoop(self._open)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections opened here."""
        await self._connections.close()

    async def meant(self, key: str) -> str | None:
        """Return the list of the topic `key`, if this topic exists and no queue `key`, otherwise None."""
        call = self._connection.call
        try:
            if topic_of(key) is None and not (await self._exists(key) or await call("SISMEMBER", QUEUES, key)):
                named = topic_list(key)
                if await call("SISMEMBER", TOPICS, key) or await self._exists(named):
                    return named
        except (Disconnected, Refused):
            pass  # a failed hint raises no error
        return None

    async def _exists(self, key: str) -> bool:
        keys = Keys(key)
        return bool(await self._connection.call("EXISTS", keys.waiting, keys.delayed, keys.dead, keys.workers))

    @property
    def _connection(self) -> Connection:
        """The connection of the running event loop."""
        return self._connections.get()

    def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        self._client_loop = self._client_loop or loop
        if self._given is not None and self._client_loop is loop and self._process == os.getpid():
            return Connection(self._given, owned=False)
        return Connection(self._address.open(), owned=True, lasting=True, checked=True)
