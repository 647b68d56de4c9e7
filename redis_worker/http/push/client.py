"""One WebSocket client: its channels, and the task that writes to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Literal, get_args

import orjson
from aiohttp import WSMsgType, web

from redis_worker.http.push.backlog import Backlog, Frame

Slow = Literal["drop", "cut"]
"""What becomes of a client that reads too slowly: it loses its oldest events, or its connection."""
SLOW = get_args(Slow)

# Answers that wait to be written; the next request of the client is read after them.
_MOST_ANSWERS = 16


class Client:
    """A connected client. Events go to its backlog, so that nothing ever waits for it."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport, most_bytes: int) -> None:
        self.channels: frozenset[str] = frozenset()
        self.slow: Slow = "drop"
        self._socket = socket
        self._transport = transport
        self._backlog = Backlog(most_bytes)
        self._answers: deque[bytes] = deque()
        self._replays: deque[AsyncGenerator[bytes, None]] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    def offer(self, frame: Frame) -> int:
        """Have `frame` sent, without waiting. Returns the number of events lost; cuts a slow client that wants it."""
        lost = self._backlog.add(frame)
        if lost and self.slow == "cut":
            self._transport.abort()  # a closing handshake would wait behind what the client does not read
        self._changed.set()
        return lost

    async def answer(self, message: Any) -> None:
        """Have an answer sent, before waiting events; waits while the client does not read its answers."""
        while len(self._answers) >= _MOST_ANSWERS:
            self._room.clear()
            await self._room.wait()
        self._answers.append(orjson.dumps(message))
        self._changed.set()

    def replay(self, frames: AsyncGenerator[bytes, None]) -> None:
        """Have `frames`, of earlier events, sent before all that waits."""
        self._replays.append(frames)
        self._changed.set()

    async def write(self) -> None:
        """Send what waits, until cancelled. Raises ConnectionError if the client is gone."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                while text := await self._next():
                    await self._socket.send_frame(text, WSMsgType.TEXT)
        finally:
            for replay in self._replays:
                await replay.aclose()

    async def _next(self) -> bytes | None:
        if self._answers:
            self._room.set()
            return self._answers.popleft()
        while self._replays:
            if (text := await anext(self._replays[0], None)) is not None:
                return text
            self._replays.popleft()
        if lost := self._backlog.take_lost():
            return orjson.dumps({"lost": lost})
        return self._backlog.next().text if self._backlog else None
