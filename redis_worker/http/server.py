"""The HTTP server beside a worker, in its event loop."""

from __future__ import annotations

import asyncio
import errno
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from redis_worker.broker.connection.address import Address
from redis_worker.http.address import HttpAddress, http_address
from redis_worker.http.cached_answer import CachedAnswer
from redis_worker.http.connections import Connections
from redis_worker.http.exposition import CONTENT_TYPE, Exposition
from redis_worker.http.lag import LoopLag
from redis_worker.http.metrics import Metrics
from redis_worker.http.readings import Depths
from redis_worker.http.request_log import RequestLog
from redis_worker.http.subject import Served, Supervised, not_ready
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Consuming, PartStatus

logger = library_logger()

# The time for requests under way to finish when the server closes, in seconds.
_CLOSE_TIMEOUT = 1.0


class HttpServer:
    """The server of `/healthz`, `/ready` and `/metrics`."""

    def __init__(self, address: str, token: str | None = None) -> None:
        """With a `token`, requests for more than the state of health must send it, as a bearer token.

        Raises ConfigurationError if `address` is invalid, or the token is empty.
        """
        if token is not None and not token.strip():
            raise ConfigurationError("the HTTP token is empty, which would allow every request")
        self._address = http_address(address)
        self._token = token
        self.metrics = Metrics()
        self.listening: str | None = None
        """The address while it listens; with the real port if 0 was configured."""

    @asynccontextmanager
    async def answering(self, service: Served, redis: Callable[[Consuming], Address | None]) -> AsyncIterator[None]:
        """Serve `service`; `redis` returns the address of a queue, None for one that is not in Redis.

        Queues on one Redis server should share one address object, because each object gets a connection. Raises
        ConfigurationError if it cannot listen.
        """
        depths, lag, connections = Depths(redis), LoopLag(), Connections()
        pages = _Pages(service, self.metrics, depths, lag, self._token)
        runner = web.AppRunner(
            pages.app(connections.middleware),
            access_log=None,
            logger=RequestLog(),
            shutdown_timeout=_CLOSE_TIMEOUT,
            keepalive_timeout=connections.idle_seconds,
            lingering_time=_CLOSE_TIMEOUT,
        )
        await runner.setup()
        measuring = asyncio.create_task(lag.run())
        listening = None
        try:
            listening, self.listening = await _listen(runner, connections, self._address)
            logger.info("http://%s answers /healthz, /ready and /metrics", self.listening)
            yield
        finally:
            self.listening = None
            measuring.cancel()
            if listening is not None:
                listening.close()
            await runner.cleanup()
            await pages.close()
            await depths.close()


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


class _Pages:
    def __init__(self, service: Served, metrics: Metrics, depths: Depths, lag: LoopLag, token: str | None) -> None:
        self._service = service
        self._metrics = metrics
        self._depths = depths
        self._lag = lag
        self._token = token
        self._since = time.monotonic()
        self._exposition = CachedAnswer(self._expose)
        self._summary = CachedAnswer(self._summarise)

    async def close(self) -> None:
        for cached in (self._exposition, self._summary):
            await cached.close()

    def app(self, middleware: Middleware) -> web.Application:
        app = web.Application(middlewares=[middleware])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics_page)
        return app

    async def _healthz(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        """Report that the event loop runs; nothing else is checked."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return web.json_response({"status": "ok", "service": self._service.service, "timestamp": now})

    async def _ready(self, request: web.Request) -> web.Response:
        """Report the state; without the token, nothing more: a probe has none."""
        service = self._service
        reason = not_ready(service)  # never cached: a stop shows at once
        answer: dict[str, Any] = {"status": "ready" if reason is None else "not ready"}
        if self._is_authorized(request):
            answer["service"] = service.service
            if reason is not None:
                answer["reason"] = reason
            if isinstance(service, Supervised):
                answer["parts"] = _parts(service)
            elif reason is None:
                answer["consumers"] = "running"
        return web.json_response(answer, status=200 if reason is None else 503)

    def _is_authorized(self, request: web.Request) -> bool:
        """Return True if the request has the token, or none is needed."""
        if self._token is None:
            return True
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        # As bytes, because clients may send any character; compared in constant time.
        same = hmac.compare_digest(token.strip().encode(errors="surrogateescape"), self._token.encode())
        return scheme.lower() == "bearer" and same

    async def _metrics_page(self, request: web.Request) -> web.Response:
        if not self._is_authorized(request):
            return web.json_response(
                {"error": "a token is required: Authorization: Bearer TOKEN"},
                status=401,
                headers={"WWW-Authenticate": 'Bearer realm="redis_worker"'},
            )
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response(body=await self._summary.get())
        return web.Response(body=await self._exposition.get(), headers={"Content-Type": CONTENT_TYPE})

    async def _expose(self) -> bytes:
        depths = await self._depths.read(self._service.consuming())
        return Exposition(self._service, self._metrics.total(), depths, self._lag.seconds).text()

    async def _summarise(self) -> bytes:
        service = self._service
        condition, counters, consuming = service.condition, service.counters, service.consuming()
        counts = {name: value for name, value in asdict(counters).items() if name != "started_at"}
        parts = {"parts": _parts(service)} if isinstance(service, Supervised) else {}
        summary = {
            "service": service.service,
            "status": condition,
            **parts,
            "uptime": round(time.monotonic() - self._since, 3),
            "consumers": {"active": len(consuming), "topics": [queue.topic for queue in consuming]},
            "in_flight": sum(queue.in_flight for queue in consuming),
            "counters": {"processed": counters.processed, **counts},
        }
        return json.dumps(summary).encode()


def _parts(service: Supervised) -> dict[str, dict[str, Any]]:
    return {part.name: _part(part) for part in service.parts()}


def _part(part: PartStatus) -> dict[str, Any]:
    answer: dict[str, Any] = {"kind": part.kind, "state": part.state, "restarts": part.restarts}
    optional = {"lag": part.lag, "error": part.error}
    return answer | {name: value for name, value in optional.items() if value is not None}
