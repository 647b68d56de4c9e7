"""A web server for the download processor."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from http import HTTPStatus
from typing import Self

HOST = "127.0.0.1"

# Delay of every response, in seconds: as on a real network, a worker has several downloads in flight.
_DELAY = 0.1


class FileServer:
    """A server of `files`, by path. After `before_pause` responses it holds all others until `resume`.

    Any worker killed in that pause holds tasks, even on a slow machine.
    """

    def __init__(self, before_pause: int) -> None:
        self.files: dict[str, bytes] = {}
        self._before_pause = before_pause
        self._resumed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its URL, inside the `async with` block."""
        return f"http://{HOST}:{self.port}"

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def paused(self) -> bool:
        """True while it holds all responses."""
        return self._before_pause <= 0 and not self._resumed.is_set()

    def resume(self) -> None:
        """Release the held responses and answer again."""
        self._resumed.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task created here: those that asyncio creates from coroutines print a traceback when cancelled.
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client may be killed at any moment: the demo does that.
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(_DELAY)
            if self.paused:
                await self._resumed.wait()
            self._before_pause -= 1
            writer.write(self._answer(request.split(b" ")[1].decode()))
            await writer.drain()

    def _answer(self, path: str) -> bytes:
        body = self.files.get(path)
        status = HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK
        body = body or b""
        head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Connection: close\r\n\r\n".encode() + body
