"""Telling a server that hangs up on what it is sent from one that is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis_worker.broker.connection.connection import Connection
from redis_worker.vocabulary.errors import Disconnected, Unacceptable

T = TypeVar("T")

# Every server takes so many bytes: it is the least that proto-max-bulk-len and client-query-buffer-limit can be set to.
_ALWAYS_TAKEN = 1024 * 1024
# A call that is cut off so often, by a server that answers in between, is refused for its content. What is one task is
# given up then, so it gets more tries; several are only sent in smaller pieces.
_TRIES, _TRIES_OF_ONE = 2, 4
# The pauses between them, in seconds: the network may have its own reasons.
_PAUSE = 0.5
# How long to wait for the answer to a PING, in seconds.
_PATIENCE = 5.0


async def insisting(connection: Connection, call: Callable[[], Awaitable[T]], size: int, count: int) -> T:
    """Return the reply to `call`, which sends `size` bytes for `count` tasks and may be repeated.

    A server that is sent too much answers and closes the connection, and the answer may be lost with it; a proxy may
    say nothing at all. Raises Unacceptable in that case, Disconnected where the server is away, and Refused.
    """
    tries = _TRIES if count > 1 else _TRIES_OF_ONE
    while True:
        try:
            return await call()
        except Unacceptable:
            # The server closes a connection on which it was sent too much: the next call must not find that one.
            with contextlib.suppress(Disconnected):
                await connection.ping(_PATIENCE)
            raise
        except Disconnected as error:
            if size <= _ALWAYS_TAKEN:
                raise
            await connection.ping(_PATIENCE)  # raises Disconnected where the server is away
            tries -= 1
            if tries == 0:
                raise Unacceptable(f"the server hangs up when it is sent {size} bytes: {error}") from error
        await asyncio.sleep(_PAUSE)
