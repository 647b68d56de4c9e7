"""A TCP proxy before a server, which can swallow what passes without a word: a black hole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable


class Proxy:
    """Passes bytes on between its clients and a server, until it is told otherwise."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.connections: list[Passage] = []
        """All there have been, in the order of their coming."""
        self.deaf = False
        """True: new connections are black holes from their first byte."""
        self.before: Callable[[bytes], Awaitable[None]] | None = None
        """Awaited with each piece that a client sends, before it is passed on."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def swallow(self) -> None:
        """Make black holes of all connections there are; new ones pass as before."""
        for connection in self.connections:
            connection.swallows = True

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in self.connections:
                connection.task.cancel()
            await asyncio.gather(*(connection.task for connection in self.connections), return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passage = Passage(asyncio.current_task(), self.deaf)
        self.connections.append(passage)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                await asyncio.gather(passage.carry(reader, ours, self.before), passage.carry(theirs, writer))
            finally:
                ours.transport.abort()
                writer.transport.abort()


class Passage:
    """One connection through the proxy."""

    def __init__(self, task: asyncio.Task, swallows: bool) -> None:
        self.task = task
        self.swallows = swallows
        self.sent = b""
        """All that has passed, in both directions."""

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        before: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        while data := await reader.read(65536):
            if before is not None:
                await before(data)
            if not self.swallows:
                self.sent += data
                writer.write(data)
        if not self.swallows:
            writer.close()
