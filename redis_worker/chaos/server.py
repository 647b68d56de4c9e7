"""The server under attack: a private one, which keeps its data over restarts, and a journal of all writes."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any, Self

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.chaos.journal import Journal
from redis_worker.embedded import HOST, EmbeddedServer
from redis_worker.vocabulary.errors import Disconnected

# Pause between two tries of a call, in seconds.
_AGAIN_AFTER = 0.05
# Limit of all tries, in seconds: no fault lasts as long.
_PATIENCE = 60.0


class PrivateServer:
    """A private server, and the ways to break it; it starts and ends with the `async with` block."""

    def __init__(self, *options: str) -> None:
        # The journal must stay complete: a rewritten file holds a state, not its history.
        self.embedded = EmbeddedServer(persistent=True, options=("--auto-aof-rewrite-percentage", "0", *options))
        self.journal = Journal(self.embedded.folder)
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        return self.embedded.url

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return HOST, self.embedded.port

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.embedded.start)
        self.connection = open_connection(self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()
        self.embedded.stop()

    async def restart(self, by: signal.Signals) -> None:
        """End the server with a signal and start it again; data stay."""
        async with self._turn:
            await asyncio.to_thread(self.embedded.restart, by)

    async def be_full(self, seconds: float) -> None:
        """Refuse what needs memory for so long, as a full server that evicts nothing."""
        async with self._turn:  # a restart would forget the limit, and end the fault early
            try:
                await self.call("CONFIG", "SET", "maxmemory", "1")
                await asyncio.sleep(seconds)
            finally:
                await self.call("CONFIG", "SET", "maxmemory", "0")

    async def call(self, *command: Any) -> Any:
        """Return the reply to a command that may be repeated, as soon as the server answers."""
        return await persistent_call(self.connection, *command)


def open_connection(url: str) -> Connection:
    """Open a connection to the server at `url`. Raises ConfigurationError."""
    return Connection(address_of(url).open(), owned=True)


async def persistent_call(connection: Connection, *command: Any) -> Any:
    """Return the reply to a command that may be repeated, as soon as the server answers.

    Raises Disconnected if it does not for a minute, and Refused.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return await connection.call(*command)
        except Disconnected:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(_AGAIN_AFTER)
