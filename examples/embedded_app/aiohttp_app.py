"""The shop with aiohttp: python -m examples.embedded_app.aiohttp_app"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from aiohttp import web

from examples.embedded_app.shop import FILE, new_client
from redis_worker import Supervisor, TaskClient

SUPERVISOR = web.AppKey("supervisor", Supervisor)
CLIENT = web.AppKey("client", TaskClient)


async def workers(app: web.Application) -> AsyncIterator[None]:
    """Run the workers as long as the application."""
    app[SUPERVISOR] = supervisor = Supervisor.from_file(FILE)
    app[CLIENT] = new_client(supervisor)
    async with app[CLIENT], supervisor:
        yield


async def order(request: web.Request) -> web.Response:
    """Price an order in the pool."""
    items = (await request.json())["items"]
    return web.json_response({"cents": await request.app[CLIENT].run([items, 0], timeout=30)})


async def parts(request: web.Request) -> web.Response:
    """Return the status of each part of the file."""
    return web.json_response([part._asdict() for part in request.app[SUPERVISOR].parts()])


def new_app() -> web.Application:
    """Return the application."""
    app = web.Application()
    app.cleanup_ctx.append(workers)
    app.add_routes([web.post("/orders", order), web.get("/parts", parts)])
    return app


if __name__ == "__main__":
    web.run_app(new_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
