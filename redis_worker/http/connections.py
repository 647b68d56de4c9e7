"""Connections to the HTTP server: bounded in number and in time.

aiohttp waits for a request without limit, and accepts connections until the process has no descriptors left:
the worker would have none for Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import web

MOST: Final = 100
"""The maximum of open connections; one more closes the one that has been idle longest."""
REQUEST_SECONDS: Final = 10.0
"""The time for a request to arrive in full, from the connection or from its first byte."""
IDLE_SECONDS: Final = 75.0
"""The time that a connection may wait for its next request."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connections:
    """The open connections of a server, in the order of their last progress."""

    def __init__(
        self, most: int = MOST, request_seconds: float = REQUEST_SECONDS, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self.request_seconds = request_seconds
        self.idle_seconds = idle_seconds
        self._most = most
        self._open: dict[asyncio.BaseTransport, _Guarded] = {}

    def __len__(self) -> int:
        return len(self._open)

    def guarded(self, protocol: asyncio.Protocol) -> asyncio.Protocol:
        """Return `protocol`, with its connection limited."""
        return _Guarded(protocol, self)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Record the arrival of a request, and its answer."""
        self._progress(request, self.request_seconds)
        try:
            return await handler(request)
        finally:
            self._progress(request, self.idle_seconds)

    def keep(self, request: web.Request) -> None:
        """End the limits of a connection that lasts: another protocol took it over, with limits of its own."""
        guarded = self._open.pop(request.transport, None)  # type: ignore[arg-type] # None is never a key
        if guarded is not None:
            guarded.keep()

    def opened(self, transport: asyncio.Transport, guarded: _Guarded) -> None:
        """Add a connection; if there are too many, close the one longest without progress."""
        if len(self._open) >= self._most:
            oldest = next(iter(self._open))
            self._open.pop(oldest).end()
        self._open[transport] = guarded

    def closed(self, transport: asyncio.BaseTransport | None) -> None:
        """Remove a connection."""
        self._open.pop(transport, None)  # type: ignore[arg-type] # None is never a key

    def _progress(self, request: web.Request, seconds: float) -> None:
        transport = request.transport
        if transport is not None and (guarded := self._open.pop(transport, None)) is not None:
            self._open[transport] = guarded
            guarded.wait(seconds, idle=seconds == self.idle_seconds)


class _Guarded(asyncio.Protocol):
    """A protocol with a time limit on silence."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._idle = False

    def wait(self, seconds: float, *, idle: bool = False) -> None:
        """Close the connection after `seconds`, unless called again; `idle` means between two requests."""
        if self._limit is not None:
            self._limit.cancel()
        self._idle = idle
        self._limit = asyncio.get_running_loop().call_later(seconds, self.end)

    def keep(self) -> None:
        """End the time limit."""
        if self._limit is not None:
            self._limit.cancel()
        self._idle = False

    def end(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is not of that class
        self._connections.opened(self._transport, self)
        self.wait(self._connections.request_seconds)
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._connections.closed(self._transport)
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self.wait(self._connections.request_seconds)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
