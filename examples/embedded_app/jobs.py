"""The functions of the shop that `workers.toml` names, and their shared state."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime
from typing import Any

import redis.asyncio

from redis_worker import Retry

HISTORY = "shop:price_history"
"""List: JSON, the prices at each instant of the cron job."""


class Supplier:
    """A stand-in for a remote service, which may be down."""

    def __init__(self) -> None:
        self.down = False

    async def prices(self) -> dict[str, int]:
        """Return the prices, in cents."""
        if self.down:
            raise ConnectionError("the supplier does not answer")
        return {"lamp": 1999, "chair": 8950, "table": 24900}


# The parts run in the application's process, so they share its module state. Parts with `processes = N` would
# have to share it in Redis.
supplier = Supplier()
prices: dict[str, int] = {}


async def follow_prices(stop: asyncio.Event, *, every: float) -> None:
    """Keep `prices` up to date: the daemon. It fails while the supplier is down; the last prices stay valid."""
    while not stop.is_set():
        prices.update(await supplier.prices())
        try:
            async with asyncio.timeout(every):
                await stop.wait()
        except TimeoutError:
            pass  # not stopped yet


async def bill(arguments: list[Any]) -> int:
    """Return the price of an order, in cents: the processor. `wrapping` is the time to wrap it, in seconds."""
    items, wrapping = arguments
    if not prices:
        raise Retry("no prices yet", delay=0.2)  # the daemon has just started
    if unknown := items.keys() - prices.keys():
        raise ValueError(f"not for sale: {', '.join(sorted(unknown))}")
    await asyncio.sleep(wrapping)
    return sum(prices[item] * number for item, number in items.items())


async def archive_prices(instant: datetime, *, url: str) -> None:
    """Archive the prices at `instant`: the cron job."""
    line = json.dumps({"at": instant.timestamp(), "prices": prices, "by": os.getpid()})
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.rpush(HISTORY, line)
