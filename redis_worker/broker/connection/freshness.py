"""Detection of connections that ended while idle, before anything is sent on them.

Servers (`timeout`), proxies and cloud providers close idle connections. redis-py checks for that only if
maintenance notifications are off, and an event loop that has not run since cannot have noticed.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any

from redis.asyncio import RedisCluster

# Iterations after which an event loop has read all received data.
_TURNS = 5


async def refresh(connection: Any) -> None:
    """Reconnect `connection` if it has ended; the caller must hold it exclusively."""
    if await _has_ended(connection):
        await connection.disconnect(nowait=True)
        await connection.connect()


async def refresh_idle(cluster: RedisCluster) -> None:
    """Disconnect the idle connections that have ended; each reconnects on its next use."""
    for node in list(cluster.nodes_manager.nodes_cache.values()):
        for _ in range(len(node._free)):
            if not node._free:
                break
            connection = node._free.popleft()  # so that no other call takes it
            try:
                if await _has_ended(connection):
                    await connection.disconnect(nowait=True)
            finally:
                node._free.append(connection)


async def _has_ended(connection: Any) -> bool:
    writer, reader = connection._writer, connection._reader
    transport = getattr(writer, "transport", None)  # fakeredis has none
    if transport is None or reader is None:
        return False
    return await has_ended(transport, lambda: reader.at_eof() or getattr(reader, "_eof", False))


async def has_ended(transport: asyncio.Transport, is_over: Callable[[], bool]) -> bool:
    """Return True if the connection of `transport` has ended, as `is_over` reports, or will report in a moment."""
    for _ in range(_TURNS):
        if transport.is_closing() or is_over():
            return True
        if not is_readable(transport):
            return False
        await asyncio.sleep(0)  # the event loop reads the end, or TLS records without data
    return True


def is_readable(transport: asyncio.Transport) -> bool:
    """Return True if something has arrived that the event loop has not read yet: data, or the end."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
