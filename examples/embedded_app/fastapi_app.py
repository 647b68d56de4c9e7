"""The shop with FastAPI: uvicorn examples.embedded_app.fastapi_app:app"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, NonNegativeFloat, PositiveInt

from examples.embedded_app.jobs import supplier
from examples.embedded_app.shop import FILE, new_client
from redis_worker import Disconnected, Supervisor, TaskError


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Run the workers as long as the application; each request's `state` holds the yielded items."""
    supervisor = Supervisor.from_file(FILE)
    # The workers stop before the client closes, after the last request.
    async with new_client(supervisor) as client, supervisor:
        yield {"supervisor": supervisor, "client": client}


app = FastAPI(lifespan=lifespan)


class Order(BaseModel):
    """An order: the number of each item, and the time to wrap it, in seconds."""

    items: dict[str, PositiveInt]
    wrapping: NonNegativeFloat = 0.0


@app.post("/orders")
async def order(order: Order, request: Request) -> dict[str, Any]:
    """Price an order in the pool, in this process or another."""
    try:
        cents = await request.state.client.run([order.items, order.wrapping], timeout=30)
    except TaskError as error:
        raise HTTPException(422, str(error)) from None
    except TimeoutError:
        raise HTTPException(504, "the order was not priced in time") from None
    return {"cents": cents}


@app.exception_handler(Disconnected)
async def without_redis(_: Request, error: Exception) -> JSONResponse:
    """Answer 503 while Redis is away."""
    return JSONResponse({"detail": str(error)}, 503)


@app.get("/parts")
async def parts(request: Request) -> list[dict[str, Any]]:
    """Return the status of each part of the file."""
    return [part._asdict() for part in request.state.supervisor.parts()]


@app.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, bool]:
    """Return 200 if all parts run. Not for a load balancer: the shop can sell while only its pool runs."""
    ready: bool = request.state.supervisor.ready
    response.status_code = 200 if ready else 503
    return {"ready": ready}


@app.post("/supplier/{state}")
async def switch_supplier(state: Literal["up", "down"]) -> dict[str, str]:
    """Switch the supplier of this process, and with it the daemon: "down" makes both fail."""
    supplier.down = state == "down"
    return {"supplier": state}


@app.post("/reload")
async def reload(request: Request) -> dict[str, bool]:
    """Reload the file: restart changed parts and parts that were given up; the others continue."""
    return {"accepted": await request.state.supervisor.reload()}
