"""The pages for machines: health, readiness and metrics."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from redis_worker.http.cached_answer import CachedAnswer
from redis_worker.http.exposition import CONTENT_TYPE, Exposition
from redis_worker.http.gate import Gate
from redis_worker.http.lag import LoopLag
from redis_worker.http.metrics import Metrics
from redis_worker.http.push.hub import Hub
from redis_worker.http.readings import Depths
from redis_worker.http.subject import Served, Supervised, not_ready
from redis_worker.vocabulary.service import PartStatus


class Pages:
    """The handlers of `/healthz`, `/ready` and `/metrics`."""

    def __init__(
        self, service: Served, metrics: Metrics, depths: Depths, lag: LoopLag, gate: Gate, hub: Hub | None
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._depths = depths
        self._lag = lag
        self._gate = gate
        self._hub = hub
        self._since = time.monotonic()
        self._exposition = CachedAnswer(self._expose)
        self._summary = CachedAnswer(self._summarise)

    async def close(self) -> None:
        """Cancel the answers under way."""
        for cached in (self._exposition, self._summary):
            await cached.close()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/healthz", self._healthz),
            web.get("/ready", self._ready),
            web.get("/metrics", self._metrics_page),
        ]

    async def _healthz(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        """Report that the event loop runs; nothing else is checked."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return web.json_response({"status": "ok", "service": self._service.service, "timestamp": now})

    async def _ready(self, request: web.Request) -> web.Response:
        """Report the state; without the token, nothing more: a probe has none."""
        service = self._service
        reason = not_ready(service)  # never cached: a stop shows at once
        answer: dict[str, Any] = {"status": "ready" if reason is None else "not ready"}
        if self._gate.is_open_to(request):
            answer["service"] = service.service
            if reason is not None:
                answer["reason"] = reason
            if isinstance(service, Supervised):
                answer["parts"] = _parts(service)
            elif reason is None:
                answer["consumers"] = "running"
        return web.json_response(answer, status=200 if reason is None else 503)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        if not self._gate.is_open_to(request):
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
        return Exposition(self._service, self._metrics.total(), depths, self._lag.seconds, self._hub).text()

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
