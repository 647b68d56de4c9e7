"""A lifespan for ASGI applications without support for it, such as Django; copy it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[dict[str, Any]]]


def with_lifespan(application: Application, lifespan: Lifespan) -> Application:
    """Return `application` with `lifespan` entered before its first request and left after its last one.

    `scope["state"]` of each request holds the items that `lifespan` yields.
    """

    async def wrapped(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(lifespan, scope, receive, send)
        else:
            await application(scope, receive, send)

    return wrapped


async def _live(lifespan: Lifespan, scope: Message, receive: Receive, send: Send) -> None:
    await receive()  # lifespan.startup
    phase = "startup"
    try:
        async with lifespan() as state:
            scope["state"].update(state)
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
            phase = "shutdown"
    except Exception as error:
        # If it were raised, the server would assume that lifespans are not supported, and continue without one.
        await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
    else:
        await send({"type": "lifespan.shutdown.complete"})
