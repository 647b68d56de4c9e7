"""Distinguishes a server that closes connections because of their content from one that is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis_worker.broker.connection.connection import Connection
from redis_worker.vocabulary.errors import Disconnected, Unacceptable

T = TypeVar("T")

# Bytes that every server accepts: the lowest setting of proto-max-bulk-len and client-query-buffer-limit.
_ALWAYS_TAKEN = 1024 * 1024
# Attempts after which a call cut off by a server that answers in between counts as refused for its content. A single
# task is given up then, so it gets more attempts; several tasks are only sent in smaller pieces.
_TRIES, _TRIES_OF_ONE = 2, 4
# Pause between attempts, in seconds: the network may be the cause.
_PAUSE = 0.5
# Longest wait for the reply to a PING, in seconds.
_PATIENCE = 5.0


async def retry_hangups(connection: Connection, call: Callable[[], Awaitable[T]], size: int, count: int) -> T:
    """Return the reply to `call`, which sends `size` bytes for `count` tasks and may be repeated.

    A server that receives too much answers and closes the connection, and the answer may be lost with it; a proxy may
    close it without an answer. Raises Unacceptable in that case, Disconnected if the server is away, and Refused.
    """
    tries = _TRIES if count > 1 else _TRIES_OF_ONE
    while True:
        try:
            return await call()
        except Unacceptable:
            # The server is about to close this connection: the next call must not use it.
            with contextlib.suppress(Disconnected):
                await connection.ping(_PATIENCE)
            raise
        except Disconnected as error:
            if size <= _ALWAYS_TAKEN:
                raise
            await connection.ping(_PATIENCE)  # raises Disconnected if the server is away
            tries -= 1
            if tries == 0:
                raise Unacceptable(f"the server closes the connection on receiving {size} bytes: {error}") from error
        await asyncio.sleep(_PAUSE)
