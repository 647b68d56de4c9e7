"""The web server that the download processor downloads from."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

HOST = "127.0.0.1"

# Every answer comes so late, in seconds: at the pace of a network, a worker has several downloads under way.
_LATE = 0.1


class FileServer:
    """Serves `files`, by path. After `before_pause` answers it keeps all others waiting until `resume`.

    Whatever worker is killed in that pause surely holds tasks, on however slow a machine.
    """

    def __init__(self, before_pause: int) -> None:
        self.files: dict[str, bytes] = {}
        self._before_pause = before_pause
        self._resumed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is, inside the `async with` block."""
        return f"http://{HOST}:{self.port}"

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def paused(self) -> bool:
        """Whether it keeps all that is asked for now waiting."""
        return self._before_pause <= 0 and not self._resumed.is_set()

    def resume(self) -> None:
        """Answer again."""
        self._resumed.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: those that asyncio makes of coroutines print a traceback when they are cancelled.
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The other end may be killed at any moment: that is what the demo is about.
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(_LATE)
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
