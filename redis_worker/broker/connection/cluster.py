"""Factories for Redis Cluster clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, ClusterPubSub
from redis.asyncio.connection import SSLConnection

from redis_worker.broker.connection.client_arguments import lasting_options
from redis_worker.broker.connection.url import nodes


def cluster_of_url(parts: SplitResult, options: dict[str, Any]) -> Callable[[], RedisCluster]:
    """Return a factory for `redis+cluster://user:password@host1:6379,host2:6379`. Raises ValueError."""
    if parts.path.strip("/") not in ("", "0") or options.pop("db", 0):
        raise ValueError("Redis Cluster has only database 0")
    tls = parts.scheme.startswith("rediss")
    return _cluster(nodes(parts, 6379), {"ssl": tls, **lasting_options(options)})


def cluster_of_client(client: RedisCluster) -> Callable[[], RedisCluster]:
    """Return a factory for the cluster of a caller's client."""
    manager = client.nodes_manager
    # The caller's nodes first, then the discovered ones: the former may be gone by now.
    known = {node.name: node for node in (*client.startup_nodes, *manager.startup_nodes.values())}
    options = lasting_options(client.connection_kwargs)
    # For a caller that reads from replicas, this is a bound method that makes connections read-only.
    options.pop("redis_connect_func", None)
    options["ssl"] = issubclass(options.pop("connection_class"), SSLConnection)
    options |= {"require_full_coverage": manager.require_full_coverage, "address_remap": manager.address_remap}
    return _cluster([(node.host, int(node.port)) for node in known.values()], options)


def _cluster(known: list[tuple[str, int]], options: dict[str, Any]) -> Callable[[], RedisCluster]:
    return lambda: _Cluster(startup_nodes=[ClusterNode(host, port) for host, port in known], **options)


class _Cluster(RedisCluster):
    def pubsub(self, *args: Any, **options: Any) -> ClusterPubSub:
        return _ClusterPubSub(self, *args, **options)


class _ClusterPubSub(ClusterPubSub):
    """A ClusterPubSub that discovers the cluster by itself and leaves a dead node; redis-py's does neither."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        connection: Any = self.connection
        if connection is None or not connection.is_connected:
            if self.connection_pool is not None:  # its node cannot be reached: choose again,
                await self.aclose()
                self.connection_pool = None  # type: ignore[assignment]
                await self.cluster.aclose()  # among the current nodes
            await self.cluster.initialize()
        return await super().execute_command(*args, **options)
