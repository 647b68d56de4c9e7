"""A WebSocket client for tests, which collects what it receives."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from tests.support import PATIENCE


def protocols(token: str) -> tuple[str, str]:
    """The subprotocols of a browser that has a token."""
    return "redis_worker", "bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


class Socket:
    """A connection to `/ws`."""

    def __init__(self, connection: ClientWebSocketResponse) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []

    async def request(self, **members: Any) -> None:
        await self.connection.send_str(json.dumps(members))

    async def subscribe(self, *channels: str, **members: Any) -> dict[str, Any]:
        """Subscribe, and return the answer."""
        await self.request(subscribe=channels, **members)
        return await self.message("subscribed")

    async def receive(self) -> dict[str, Any]:
        """The next message, whichever it is."""
        received = await self.connection.receive(timeout=PATIENCE)
        assert received.type is WSMsgType.TEXT, received
        message = json.loads(received.data)
        self.events += message.get("events", ())
        return message

    async def message(self, member: str) -> dict[str, Any]:
        """The next message with `member`; events that come before it are kept."""
        while member not in (message := await self.receive()):
            assert "error" not in message, message
        return message

    async def receive_events(self, count: int) -> list[dict[str, Any]]:
        """All events so far, once there are `count`."""
        while len(self.events) < count:
            await self.receive()
        return self.events

    async def closed(self) -> int | None:
        """The code of the end of the connection."""
        while not self.connection.closed:
            await self.connection.receive(timeout=PATIENCE)
        return self.connection.close_code


@asynccontextmanager
async def connected(address: str | None, **options: Any) -> AsyncIterator[Socket]:
    """Connect to `/ws` at `address`; `options` are those of aiohttp."""
    async with ClientSession() as session, session.ws_connect(f"http://{address}/ws", **options) as connection:
        yield Socket(connection)
