"""The connections of a redis-py client: how many there are, a free one, and their abrupt end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from redis_worker.broker.connection.address import Client
from redis_worker.vocabulary.errors import Disconnected

T = TypeVar("T")

# Interval, in seconds, of attempts to get a connection from an exhausted pool.
RETRY_INTERVAL = 0.02


async def with_connection(send: Callable[[], Awaitable[T]], patience: float) -> T:
    """Run `send` once the client has a free connection: other code may hold those of a caller's client.

    Raises Disconnected if none is free after `patience` seconds.
    """
    end = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await send()
        except exceptions.ConnectionError as error:
            if not _is_exhausted(error):
                raise
        await asyncio.sleep(RETRY_INTERVAL)
        if asyncio.get_running_loop().time() >= end:
            raise Disconnected("all connections of the client are in use: raise its max_connections")


def _is_exhausted(error: exceptions.ConnectionError) -> bool:
    """Return True if redis-py's pool had no connection left, so that nothing was sent."""
    return isinstance(error, exceptions.MaxConnectionsError) or str(error) == "No connection available."


def most_connections(client: Client) -> int:
    """Return the most connections that `client` opens; 0 if it has no bound."""
    options: Any = client.connection_kwargs if isinstance(client, RedisCluster) else vars(client.connection_pool)
    return int(options.get("max_connections") or 0)


def connections_of(client: Client) -> list[Any]:
    """Return all connections of a client, idle and in use; redis-py has no public way to list them.

    For a cluster, list those of every node: a client that has lost one node considers itself closed and does
    not close the others.
    """
    if isinstance(client, RedisCluster):
        manager = client.nodes_manager
        nodes = {id(node): node for node in (*manager.nodes_cache.values(), *manager.startup_nodes.values())}
        return [connection for node in nodes.values() for connection in node._connections]
    pools = [client.connection_pool]
    if isinstance(client.connection_pool, SentinelConnectionPool):
        pools += [sentinel.connection_pool for sentinel in client.connection_pool.sentinel_manager.sentinels]
    return [connection for pool in pools for connection in (*pool._available_connections, *pool._in_use_connections)]


def abort_connections(client: Client) -> None:
    """End the connections of `client` at once, without sending anything."""
    for connection in connections_of(client):
        abort = getattr(getattr(connection._writer, "transport", None), "abort", None)  # fakeredis has none
        if abort is not None:
            abort()
