"""The page of the devices, its first content, and the metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from examples.device_pipeline.metrics import ConsumerMetrics
from examples.device_pipeline.settings import Prometheus
from redis_worker import ConfigurationError

_PAGE = Path(__file__).with_name("page.html")
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def latest_states(redis: Redis) -> dict[str, dict[str, str]]:
    """Return the latest state of each device in the cache, in the order of their names."""
    keys = sorted([key async for key in redis.scan_iter("device:*", count=1000, _type="hash")])
    pipeline = redis.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    states: list[dict[bytes, bytes]] = await pipeline.execute()
    return {
        key.decode().removeprefix("device:"): {name.decode(): value.decode() for name, value in state.items()}
        for key, state in zip(keys, states, strict=True)
    }


@dataclass
class Page:
    """The page that is served."""

    address: str
    events: str | None = None
    """The host and port of `/ws`, once there is one."""

    @property
    def origins(self) -> list[str]:
        """The addresses from which a browser may have the page."""
        return [self.address, self.address.replace("127.0.0.1", "localhost")]


@asynccontextmanager
async def serving(redis_url: str, settings: Prometheus, metrics: ConsumerMetrics) -> AsyncIterator[Page]:
    """Serve the page and the metrics. Raises ConfigurationError."""
    redis: Redis = Redis.from_url(redis_url)
    served = Page("")

    async def page(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(_PAGE)

    async def devices(_: web.Request) -> web.StreamResponse:
        return web.json_response({"events": f"ws://{served.events}/ws", "devices": await latest_states(redis)})

    async def exposition(_: web.Request) -> web.StreamResponse:
        return web.Response(body=metrics.text(), headers={"Content-Type": _TYPE})

    try:
        paths = {"/": page, "/devices": devices, settings.path: exposition}
        async with _site(settings, paths) as served.address:
            yield served
    finally:
        await redis.aclose()


@asynccontextmanager
async def _site(
    settings: Prometheus, paths: Mapping[str, Callable[[web.Request], Awaitable[Any]]]
) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([web.get(path, handler) for path, handler in paths.items()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; set `port` under [prometheus]"
            ) from None
        yield f"http://{settings.host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
