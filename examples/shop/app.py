"""The front of the shop: uvicorn examples.shop.app:app"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse

from examples.shop.tasks import Order, monthly_report, open_database, place, queue, steps
from redis_worker import Disconnected, Handle, Supervisor, TaskError

_HERE = Path(__file__).parent


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Run the workers of the file as long as the application; others may run elsewhere."""
    with closing(open_database()) as database:
        async with Supervisor.from_file(_HERE / "workers.toml"):
            yield {"database": database}
    await queue.close()


app = FastAPI(lifespan=lifespan)


@dataclass
class State:
    """The state of a task."""

    state: str
    result: Any = None
    error: str | None = None
    """The reason, if it has failed."""


async def state_of(handle: Handle[Any]) -> State:
    """Return the state of a task."""
    state = await handle.status()
    try:
        return State(state, None if state == "pending" else await handle.result(timeout=0))
    except TaskError as error:
        return State(state, error=error.error)


@app.get("/", include_in_schema=False)
async def get_page() -> FileResponse:
    """Return the page."""
    return FileResponse(_HERE / "page.html")


@app.get("/stock")
def get_stock(request: Request) -> dict[str, int]:
    """Return the number of each item."""
    stock: dict[str, int] = request.state.database.stock()
    return stock


@app.put("/orders/{id}", status_code=202)
async def put_order(id: str, order: Order) -> None:
    """Accept an order. A client that has got no answer sends it again."""
    await place(id, order)


@app.get("/orders/{id}")
async def get_order(id: str) -> dict[str, State]:
    """Return the states of the steps of an order."""
    return {name: await state_of(handle) for name, handle in steps(id).items()}


@app.post("/reports", status_code=202)
async def submit_report() -> dict[str, str]:
    """Have this month's report made; as long as one is being made, it is that one."""
    month = datetime.now(UTC).date().replace(day=1)
    return {"id": (await monthly_report.options(unique=True).submit(month)).id}


@app.get("/reports/{id}")
async def get_report(id: str) -> dict[str, Any]:
    """Return the state and the progress of a report."""
    handle = monthly_report.handle(id)
    state, progress = await state_of(handle), await handle.progress()
    return {"progress": progress and progress._asdict(), **vars(state)}


@app.delete("/reports/{id}")
async def cancel_report(id: str) -> dict[str, bool]:
    """Cancel a report."""
    return {"cancelled": await monthly_report.handle(id).cancel()}


@app.exception_handler(Disconnected)
async def without_redis(_: Request, error: Exception) -> JSONResponse:
    """Answer 503 while Redis is away."""
    return JSONResponse({"detail": str(error)}, 503)
