"""Connections that have ended while they were idle: found out before anything is sent on them.

Servers (`timeout`), proxies and cloud providers close idle connections. redis-py looks for that only where
maintenance notifications are off, and an event loop that has not turned since has not heard of it.
"""

from __future__ import annotations

import asyncio
import select
from typing import Any

from redis.asyncio import RedisCluster

# After so many turns an event loop has read what had come in.
_TURNS = 5


async def refresh(connection: Any) -> None:
    """Connect `connection`, which nobody else may use meanwhile, anew where it has ended."""
    if await _has_ended(connection):
        await connection.disconnect(nowait=True)
        await connection.connect()


async def refresh_idle(cluster: RedisCluster) -> None:
    """Disconnect the idle connections that have ended: each is connected anew when it is taken."""
    for node in list(cluster.nodes_manager.nodes_cache.values()):
        for _ in range(len(node._free)):
            if not node._free:
                break
            connection = node._free.popleft()  # so that nobody else takes it meanwhile
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
    for _ in range(_TURNS):
        if transport.is_closing() or reader.at_eof() or getattr(reader, "_eof", False):
            return True
        if not _is_readable(transport):
            return False
        await asyncio.sleep(0)  # the end, or what TLS tells beside the data, is read by the event loop
    return True


def _is_readable(transport: asyncio.Transport) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
