"""A shop at work: the functions of scene.toml, and the tasks that they are given."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from redis_worker import Message, Publisher, Reject, TaskClient


async def thumbnail(arguments: list[Any]) -> str:
    await asyncio.sleep(random.lognormvariate(-3.6, 0.8))
    if random.random() < 0.004:
        raise ValueError(f"unsupported image format in {arguments[0]}")
    return f"{arguments[0]}.webp"


async def invoice(arguments: list[Any]) -> dict[str, Any]:
    number, total = arguments
    if number % 1000 == 7:
        await asyncio.sleep(400)
    await asyncio.sleep(random.uniform(0.02, 0.2))
    if total < 0:
        raise Reject(f"invoice {number} has a negative total of {total}")
    if number % 37 == 0:
        raise ConnectionError("smtp.example refused the connection")
    return {"number": number, "sent": True}


async def remind(message: Message) -> None:
    await asyncio.sleep(0.01)


async def stock(message: Message) -> None:
    await asyncio.sleep(random.uniform(0.001, 0.01))
    if random.random() < 0.002:
        raise KeyError("warehouse")


async def follow_prices(stop: asyncio.Event) -> None:
    raise RuntimeError("no table `prices` in the database")


async def archive() -> None:
    await asyncio.sleep(0.8)


def report() -> None:
    raise TimeoutError("the report's query took longer than 30 s")


async def feed(url: str, seconds: float) -> None:
    """Give the shop work for so many seconds."""
    end, number = time.monotonic() + seconds, 0
    async with (
        TaskClient(url, "shop:thumbnails", "shop:thumbnails:done") as thumbnails,
        TaskClient(url, "shop:invoices", "shop:invoices:done") as invoices,
        TaskClient(url, "shop:returns", "shop:returns:done") as returns,
        Publisher(url) as publisher,
    ):
        await publisher.publish_many("order.reminder", [{"order": n} for n in range(240)], "24h")
        await returns.submit_many([[n] for n in range(58)])
        while time.monotonic() < end:
            burst = 90 if time.monotonic() % 20 < 6 else 24
            await thumbnails.submit_many([[f"catalogue/{number + n}.jpg"] for n in range(burst)])
            await invoices.submit_many(
                [[number + n, -8.5 if (number + n) % 90 == 0 else 12.5] for n in range(random.choice((1, 2, 3)))]
            )
            await publisher.publish_many(
                "stock.berlin", [{"item": n, "left": n % 7} for n in range(random.randint(5, 30))]
            )
            number += burst
            await asyncio.sleep(0.2)
