"""The functions of the shop, and what they need."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from examples.shop.database import Database
from redis_worker import Reject, TaskQueue, current_resources, current_task

PRICES = {"pen": 120, "paper": 450, "ink": 990}
"""The price of each item, in cents."""

queue = TaskQueue(os.environ.get("REDIS_URL", "redis://localhost"), "shop")


@dataclass
class Order:
    """An order: the number of each item."""

    customer: str
    items: dict[str, int]


@dataclass
class Report:
    """The totals of the shop."""

    orders: int
    total: Decimal
    receipts: int


@queue.lifespan
async def database() -> AsyncIterator[Database]:
    """Open the database, once in each process."""
    database = Database(Path(os.environ.get("SHOP_DATABASE", "shop.db")))
    try:
        yield database
    finally:
        database.close()


@queue.task(retries=3, timeout=30)
def charge(order: Order) -> Decimal:
    """Store an order, have its receipt sent, and return its price. A plain function: it runs in a thread."""
    if unknown := order.items.keys() - PRICES.keys():
        raise Reject(f"the shop does not sell {', '.join(sorted(unknown))}")
    cents = sum(PRICES[item] * number for item, number in order.items.items())
    id = current_task().id
    current_resources().add_order(id, order.customer, cents)
    send_receipt.options(id=f"receipt-{id}").submit_sync(id, order.customer)
    return Decimal(cents) / 100


@queue.task(retries=5)
async def send_receipt(order: str, customer: str) -> None:
    """Send the receipt of an order. A coroutine function: it runs on the event loop."""
    print(f"to {customer}: thank you for your order {order}", flush=True)
    current_resources().add_receipt(order)


@queue.task(execution="process", timeout=60)
def report() -> Report:
    """Return the totals, from a child process."""
    orders, cents, receipts = current_resources().totals()
    return Report(orders, Decimal(cents) / 100, receipts)
