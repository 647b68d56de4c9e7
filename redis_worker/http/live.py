"""The live part of a server: events for WebSocket clients, and the dashboard."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from redis_worker.broker.connection.address import Address
from redis_worker.http.dashboard.api import Api
from redis_worker.http.dashboard.files import Files
from redis_worker.http.dashboard.watch import Watch
from redis_worker.http.gate import Gate
from redis_worker.http.push.endpoint import Endpoint
from redis_worker.http.push.hub import Hub


class Live:
    """The paths `/ws`, `/` and `/api/`, for one Redis server with all its queues and workers."""

    def __init__(
        self, fleet: Address, gate: Gate, keep: Callable[[web.Request], None], name: str, *, always: bool = False
    ) -> None:
        """`keep` is called with a request whose connection is to last; `name` is that of the process.

        With `always`, the history is kept while nobody looks, too.
        """
        self.hub = Hub(fleet)
        self._endpoint = Endpoint(self.hub, gate, keep)
        self._watch = Watch(fleet, self.hub, always)
        self._api = Api(fleet, gate, self._watch, name)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/ws", self._endpoint.handle), *Files().routes(), *self._api.routes()]

    def start(self) -> None:
        """Start to watch the fleet, in the running event loop."""
        self._watch.start()

    async def close(self) -> None:
        """Say goodbye to the clients, and end the watch."""
        await self._endpoint.close()
        await self._watch.close()
