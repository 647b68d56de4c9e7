"""The functions of the shop, and what they need."""

from __future__ import annotations

import asyncio
import calendar
import os
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PositiveInt

from examples.shop.database import Database, OutOfStock
from redis_worker import Handle, Reject, TaskQueue, chain, current_resources, current_task

queue = TaskQueue(os.environ.get("REDIS_URL", "redis://localhost"), "shop")


class Order(BaseModel):
    """An order of one item."""

    customer: str
    item: str
    number: PositiveInt


@dataclass
class Invoice:
    """An order that has its items: each step of the flow hands it to the next."""

    order: str
    customer: str
    text: str
    cents: int


@dataclass
class Report:
    """The turnover of a month."""

    orders: int
    total: Decimal


def open_database() -> Database:
    """Open the database at SHOP_DATABASE."""
    return Database(Path(os.environ.get("SHOP_DATABASE", "shop.db")))


@queue.lifespan
async def resources() -> AsyncIterator[Database]:
    """Open the database, once in each process."""
    with closing(open_database()) as database:
        yield database


def database() -> Database:
    """Return the database of this process."""
    opened: Database = current_resources()
    return opened


@queue.task(retries=3)
def reserve(id: str, order: Order) -> Invoice:
    """Take the items of an order out of stock. A plain function: it runs in a thread."""
    try:
        cents = database().reserve(id, order.item, order.number)
    except OutOfStock as error:
        raise Reject(str(error)) from None  # no retry mends it
    return Invoice(id, order.customer, f"{order.number} of {order.item}", cents)


@queue.task(retries=3, timeout=30)
def charge(invoice: Invoice) -> Invoice:
    """Charge the card. The id of the order keeps the bank from charging it twice."""
    time.sleep(1)  # the bank's answer takes a second
    if invoice.cents > 50_000:
        database().release(invoice.order)
        raise Reject("the bank declines the card")
    database().charged(invoice.order)
    return invoice


@queue.task(retries=5, rate="2/s")
async def send_mail(invoice: Invoice) -> None:
    """Send the receipt, two a second at most over all workers. A coroutine function: it runs on the event loop."""
    text = f"Thank you for your order of {invoice.text}, {invoice.cents / 100:.2f}."
    await asyncio.to_thread(database().mailed, invoice.order, invoice.customer, text)


async def place(id: str, order: Order) -> None:
    """Place an order. Its steps are known by its id, so that it can be placed again, and is the same order."""
    await chain(
        reserve.options(id=f"reserve-{id}").call(id, order),
        charge.options(id=f"charge-{id}"),
        send_mail.options(id=f"send_mail-{id}"),
    ).submit()


def steps(id: str) -> dict[str, Handle[Any]]:
    """Return the steps of an order: a handle needs an id alone, so nobody has to keep one."""
    return {function.name: function.handle(f"{function.name}-{id}") for function in (reserve, charge, send_mail)}


@queue.task(execution="process", timeout="10m")
def monthly_report(month: date) -> Report:
    """Add up a month, day by day, in a child process, which a cancellation kills."""
    _, days = calendar.monthrange(month.year, month.month)
    report = Report(0, Decimal())
    for day in range(1, days + 1):
        time.sleep(0.2)  # the books are long
        orders, cents = database().turnover(f"{month:%Y-%m}-{day:02}")
        report = Report(report.orders + orders, report.total + Decimal(cents) / 100)
        current_task().progress(day, days, f"{day} {month:%B}")
    return report
