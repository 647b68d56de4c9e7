"""A TCP proxy between a worker and its server, which damages what passes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self

from redis_worker.embedded import HOST

_CHUNK = 65536


class Proxy:
    """A proxy on 127.0.0.1, inside the `async with` block."""

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        """`target` returns host and port of the server, for each new connection."""
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.WriteTransport] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self._delay = 0.0
        self._to_halve = 0
        self._halved = asyncio.Event()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> int:
        """Abort all connections. Return their number."""
        transports = list(self._transports)
        for transport in transports:
            transport.abort()
        return len(transports) // 2

    async def stall(self, seconds: float) -> None:
        """Hold all bytes in both directions; those of new connections too."""
        self._moving.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._moving.set()

    async def delay(self, seconds: float, each: float) -> None:
        """Delay all bytes by `each` seconds, for a while."""
        self._delay = each
        try:
            await asyncio.sleep(seconds)
        finally:
            self._delay = 0.0

    async def halve(self, replies: int, patience: float) -> int:
        """Deliver only the first half of each of the next `replies`, then cut. Return the number delivered so."""
        self._to_halve = replies
        try:
            async with asyncio.timeout(patience):
                while self._to_halve:
                    self._halved.clear()
                    await self._halved.wait()
        except TimeoutError:
            pass
        left, self._to_halve = self._to_halve, 0
        return replies - left

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task created here: those that asyncio creates from coroutines print a traceback when cancelled.
        task = asyncio.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._abort, writer)
            self._transports.add(writer.transport)
            try:
                answers, server = await asyncio.open_connection(*self._target())
            except OSError:
                return
            stack.callback(self._abort, server)
            self._transports.add(server.transport)
            ways = [
                asyncio.create_task(self._carry(reader, server, False)),
                asyncio.create_task(self._carry(answers, writer, True)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._moving.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if replies and self._to_halve:
                    self._to_halve -= 1
                    self._halved.set()
                    writer.write(data[: len(data) // 2])
                    return
                writer.write(data)
                await writer.drain()

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        self._transports.discard(writer.transport)
        writer.transport.abort()
