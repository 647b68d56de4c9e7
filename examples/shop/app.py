"""The front of the shop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from examples.shop.tasks import Order, Report, charge, queue, report
from redis_worker import TaskError


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Run a worker as long as the application; others may run elsewhere."""
    async with queue.worker(concurrency=8):
        yield
    queue.close_sync()
    await queue.close()


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def submit_order(order: Order) -> dict[str, str]:
    """Accept an order and return the id to ask for."""
    return {"id": (await charge.submit(order)).id}


@app.get("/orders/{id}")
async def get_order(id: str) -> dict[str, Any]:
    """Return the state of an order, and its price or the reason for having none."""
    try:
        return {"state": "succeeded", "price": await charge.handle(id).result(timeout=0)}
    except TimeoutError:
        return {"state": "pending"}
    except TaskError as error:
        return {"state": "failed", "error": error.error}


@app.get("/report")
async def get_report() -> Report:
    """Return the totals of the shop."""
    return await (await report.submit()).result(timeout=60)
