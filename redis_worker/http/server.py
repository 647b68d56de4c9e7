"""The HTTP server beside a worker, in its event loop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from redis_worker.broker.connection.address import Address
from redis_worker.http.address import HttpAddress, http_address
from redis_worker.http.connections import Connections
from redis_worker.http.gate import Gate
from redis_worker.http.lag import LoopLag
from redis_worker.http.live import Live
from redis_worker.http.metrics import Metrics
from redis_worker.http.pages import Pages
from redis_worker.http.readings import Depths
from redis_worker.http.request_log import RequestLog
from redis_worker.http.subject import Served
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Consuming

logger = library_logger()

# The time for requests under way to finish when the server closes, in seconds.
_CLOSE_TIMEOUT = 1.0


class HttpServer:
    """The server of `/healthz`, `/ready` and `/metrics`, of events at `/ws`, and of the dashboard at `/`."""

    def __init__(self, address: str, token: str | None = None, origins: Sequence[str] = ()) -> None:
        """With a `token`, requests for more than the state of health must send it, as a bearer token.

        Pages of `origins`, such as `https://shop.example`, may connect to `/ws`, besides those of this server.
        Raises ConfigurationError if `address` is invalid, or the token is empty.
        """
        if token is not None and not token.strip():
            raise ConfigurationError("the HTTP token is empty, which would allow every request")
        self._address = http_address(address)
        self._gate = Gate(token, origins)
        self.metrics = Metrics()
        self.listening: str | None = None
        """The address while it listens; with the real port if 0 was configured."""

    @asynccontextmanager
    async def answering(
        self, service: Served, redis: Callable[[Consuming], Address | None], fleet: Address | None = None
    ) -> AsyncIterator[None]:
        """Serve `service`; `redis` returns the address of a queue, None for one that is not in Redis.

        Queues on one Redis server should share one address object, because each object gets a connection.
        `fleet` is the Redis server of the dashboard and of `/ws`; None serves neither. Raises ConfigurationError if it
        cannot listen.
        """
        depths, lag, connections = Depths(redis), LoopLag(), Connections()
        live = None if fleet is None else Live(fleet, self._gate, connections.keep, service.service)
        pages = Pages(service, self.metrics, depths, lag, self._gate, None if live is None else live.hub)
        measuring = asyncio.create_task(lag.run())
        try:
            async with self._listening([*pages.routes(), *([] if live is None else live.routes())], connections):
                logger.info("http://%s answers /healthz, /ready and /metrics", self.listening)
                async with _living(live):
                    yield
        finally:
            measuring.cancel()
            await pages.close()
            await depths.close()

    @asynccontextmanager
    async def showing(self, fleet: Address, name: str) -> AsyncIterator[None]:
        """Serve the dashboard of `fleet` without a worker. Raises ConfigurationError if it cannot listen."""
        connections = Connections()
        live = Live(fleet, self._gate, connections.keep, name, always=True)
        async with self._listening([web.get("/healthz", _healthz), *live.routes()], connections), _living(live):
            yield

    @asynccontextmanager
    async def _listening(self, routes: Iterable[web.RouteDef], connections: Connections) -> AsyncIterator[None]:
        """Listen, and answer `routes`. Raises ConfigurationError if it cannot listen."""
        app = web.Application(middlewares=[connections.middleware])
        app.add_routes(routes)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=RequestLog(),
            shutdown_timeout=_CLOSE_TIMEOUT,
            keepalive_timeout=connections.idle_seconds,
            lingering_time=_CLOSE_TIMEOUT,
        )
        await runner.setup()
        listening = None
        try:
            listening, self.listening = await _listen(runner, connections, self._address)
            yield
        finally:
            self.listening = None
            if listening is not None:
                listening.close()
            await runner.cleanup()


async def _healthz(request: web.Request) -> web.Response:  # noqa: ARG001 - aiohttp's signature
    """Report that the event loop runs."""
    return web.json_response({"status": "ok"})


@asynccontextmanager
async def _living(live: Live | None) -> AsyncIterator[None]:
    if live is None:
        yield
        return
    live.start()
    try:
        yield
    finally:
        await live.close()


async def _listen(runner: web.AppRunner, connections: Connections, address: HttpAddress) -> tuple[asyncio.Server, str]:
    server = runner.server
    assert server is not None, "the runner is set up"
    try:
        listening = await asyncio.get_running_loop().create_server(
            lambda: connections.guarded(server()), address.host, address.port
        )
    except OSError as error:
        raise ConfigurationError(f"HTTP cannot listen on {address}: {_reason(error)}") from None
    host, port = listening.sockets[0].getsockname()[:2]
    return listening, str(HttpAddress(host, port))


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; end it, or choose another port"
    if error.errno in (errno.EADDRNOTAVAIL, None):  # None: asyncio, from Python 3.13 on
        return "this machine has no such address"
    # asyncio puts a long sentence before the system's message.
    return (error.strerror or str(error)).rpartition("] ")[2]
