"""The work of the shop: the functions that `workers.toml` names, and what they share."""

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
    """Stands for a service somewhere else, which may be down."""

    def __init__(self) -> None:
        self.down = False

    async def prices(self) -> dict[str, int]:
        """What things cost, in cents."""
        if self.down:
            raise ConnectionError("the supplier does not answer")
        return {"lamp": 1999, "chair": 8950, "table": 24900}


# The parts run in the application's process, so they share with it, and with each other, what modules share. Parts
# with `processes = N` would not: what they share lies in Redis.
supplier = Supplier()
prices: dict[str, int] = {}


async def follow_prices(stop: asyncio.Event, *, every: float) -> None:
    """The daemon: keep `prices` up to date. When the supplier is down, so is this; the last prices hold."""
    while not stop.is_set():
        prices.update(await supplier.prices())
        try:
            async with asyncio.timeout(every):
                await stop.wait()
        except TimeoutError:
            pass  # nobody has asked to stop


async def bill(arguments: list[Any]) -> int:
    """The processor: what an order costs, in cents. `wrapping` is how many seconds it takes to wrap it."""
    items, wrapping = arguments
    if not prices:
        raise Retry("no prices yet", delay=0.2)  # the daemon has just begun
    if unknown := items.keys() - prices.keys():
        raise ValueError(f"not for sale: {', '.join(sorted(unknown))}")
    await asyncio.sleep(wrapping)
    return sum(prices[item] * number for item, number in items.items())


async def archive_prices(instant: datetime, *, url: str) -> None:
    """The cron job: write down what things cost at `instant`, for the accountant."""
    line = json.dumps({"at": instant.timestamp(), "prices": prices, "by": os.getpid()})
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.rpush(HISTORY, line)
