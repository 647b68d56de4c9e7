"""The HTTP server beside a worker, in its event loop."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from redis_worker.broker.address import Address
from redis_worker.http.address import HttpAddress, http_address
from redis_worker.http.exposition import CONTENT_TYPE, Exposition
from redis_worker.http.lag import LoopLag
from redis_worker.http.metrics import Metrics
from redis_worker.http.readings import Readings
from redis_worker.http.served import Served
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()

# What is being answered when the server closes may take so long, in seconds.
_LAST_WORDS = 1.0


class HttpServer:
    """Answers `/healthz`, `/ready` and `/metrics`."""

    def __init__(self, address: str) -> None:
        """Raises ConfigurationError where `address` is none."""
        self._address = http_address(address)
        self.metrics = Metrics()
        self.listening: str | None = None
        """Where it listens, once it does; with the real port, where 0 was asked for."""

    @asynccontextmanager
    async def answering(self, service: Served, redis: Address) -> AsyncIterator[None]:
        """Answer for `service`, whose queues are at `redis`. Raises ConfigurationError where it cannot listen."""
        readings, lag = Readings(redis), LoopLag()
        pages = _Pages(service, self.metrics, readings, lag)
        runner = web.AppRunner(pages.app(), access_log=None, shutdown_timeout=_LAST_WORDS)
        await runner.setup()
        measuring = asyncio.create_task(lag.run())
        try:
            self.listening = await _listen(runner, self._address)
            logger.info("http://%s answers /healthz, /ready and /metrics", self.listening)
            yield
        finally:
            self.listening = None
            measuring.cancel()
            await runner.cleanup()
            await readings.close()


async def _listen(runner: web.AppRunner, address: HttpAddress) -> str:
    try:
        await web.TCPSite(runner, address.host, address.port).start()
    except OSError as error:
        raise ConfigurationError(f"HTTP cannot listen on {address}: {_reason(error)}") from None
    host, port = runner.addresses[0][:2]
    return str(HttpAddress(host, port))


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; end it, or choose another port"
    # asyncio puts a long sentence of its own before the system's words.
    return (error.strerror or str(error)).rpartition("] ")[2]


class _Pages:
    def __init__(self, service: Served, metrics: Metrics, readings: Readings, lag: LoopLag) -> None:
        self._service = service
        self._metrics = metrics
        self._readings = readings
        self._lag = lag
        self._since = time.monotonic()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._tell_metrics)
        return app

    async def _healthz(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        """That this is answered says that the event loop turns; nothing else is asked."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return web.json_response({"status": "ok", "service": self._service.service, "timestamp": now})

    async def _ready(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        condition, service = self._service.condition, self._service.service
        if condition == "running":
            return web.json_response({"status": "ready", "service": service, "consumers": "running"})
        return web.json_response({"status": "not ready", "service": service, "reason": condition}, status=503)

    async def _tell_metrics(self, request: web.Request) -> web.Response:
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response(self._summary())
        queues = [consuming.queue for consuming in self._service.consuming()]
        depths = await self._readings.depths(queues)
        exposition = Exposition(self._service, self._metrics.queues, depths, self._lag.seconds)
        return web.Response(body=exposition.text(), headers={"Content-Type": CONTENT_TYPE})

    def _summary(self) -> dict[str, Any]:
        service = self._service
        condition, counters, consuming = service.condition, service.counters, service.consuming()
        counts = {name: value for name, value in asdict(counters).items() if name != "started_at"}
        return {
            "service": service.service,
            "status": condition,
            "uptime": round(time.monotonic() - self._since, 3),
            "consumers": {"active": len(consuming), "topics": [queue.topic for queue in consuming]},
            "in_flight": sum(queue.in_flight for queue in consuming),
            "counters": {"processed": counters.processed, **counts},
        }
