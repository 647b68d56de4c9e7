"""The live part of a server: events for WebSocket clients."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from redis_worker.broker.connection.address import Address
from redis_worker.http.gate import Gate
from redis_worker.http.push.endpoint import Endpoint
from redis_worker.http.push.hub import Hub


class Live:
    """The path `/ws`, with the events of one Redis server."""

    def __init__(self, fleet: Address, gate: Gate, keep: Callable[[web.Request], None]) -> None:
        """`keep` is called with a request whose connection is to last."""
        self.hub = Hub(fleet)
        self._endpoint = Endpoint(self.hub, gate, keep)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/ws", self._endpoint.handle)]

    async def close(self) -> None:
        """Say goodbye to the clients."""
        await self._endpoint.close()
