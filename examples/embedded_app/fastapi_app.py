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
    """Run the workers for as long as the application: what is yielded is in each request's `state`."""
    supervisor = Supervisor.from_file(FILE)
    # The workers end before the client does, after the last request was answered.
    async with new_client(supervisor) as client, supervisor:
        yield {"supervisor": supervisor, "client": client}


app = FastAPI(lifespan=lifespan)


class Order(BaseModel):
    """What is ordered: how many of each, and how long it takes to wrap it, in seconds."""

    items: dict[str, PositiveInt]
    wrapping: NonNegativeFloat = 0.0


@app.post("/orders")
async def order(order: Order, request: Request) -> dict[str, Any]:
    """Have the pool price an order, here or wherever it runs."""
    try:
        cents = await request.state.client.run([order.items, order.wrapping], timeout=30)
    except TaskError as error:
        raise HTTPException(422, str(error)) from None
    except TimeoutError:
        raise HTTPException(504, "nobody has priced the order in time") from None
    return {"cents": cents}


@app.exception_handler(Disconnected)
async def without_redis(_: Request, error: Exception) -> JSONResponse:
    """Redis is away, and the application is not."""
    return JSONResponse({"detail": str(error)}, 503)


@app.get("/parts")
async def parts(request: Request) -> list[dict[str, Any]]:
    """How each part of the file stands."""
    return [part._asdict() for part in request.state.supervisor.parts()]


@app.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, bool]:
    """Whether all of them work. A load balancer should not ask this one: the shop sells as long as its pool runs."""
    ready: bool = request.state.supervisor.ready
    response.status_code = 200 if ready else 503
    return {"ready": ready}


@app.post("/supplier/{state}")
async def switch_supplier(state: Literal["up", "down"]) -> dict[str, str]:
    """Have the supplier fail, and with it the daemon; or answer again. In this process: another has its own."""
    supplier.down = state == "down"
    return {"supplier": state}


@app.post("/reload")
async def reload(request: Request) -> dict[str, bool]:
    """Read the file again. What has changed in it is restarted, what was given up begins anew, all else goes on."""
    return {"accepted": await request.state.supervisor.reload()}
