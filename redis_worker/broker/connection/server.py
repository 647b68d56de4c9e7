"""Factories for clients of a single server, on a port or a Unix socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool, parse_url

from redis_worker.broker.connection.client_arguments import lasting_options
from redis_worker.broker.connection.url import database, nodes


def server_of_url(parts: SplitResult, options: dict[str, Any]) -> Callable[[], Redis]:
    """Return a factory for `redis://user:password@host:6379/0?…`, `rediss://…`, `unix://user:password@/path?db=0`.

    Raises ValueError.
    """
    if parts.scheme == "unix":
        if parts.netloc.rpartition("@")[2] or not parts.path:
            raise ValueError("give the full path of the socket, as in unix:///run/redis.sock?db=0")
    else:
        if parts.netloc.rpartition("@")[2]:
            [node, *more] = nodes(parts, 6379)
            if more:
                raise ValueError("several hosts require redis+sentinel:// or redis+cluster://")
            options["host"], options["port"] = node
        if number := parts.path.strip("/"):
            options.setdefault("db", database(number))
    path = parts.path if parts.scheme == "unix" else ""
    given = {**parse_url(f"{parts.scheme}://{path}"), **options}
    return _server(given.pop("connection_class", None), lasting_options(given))


def server_of_pool(pool: Any) -> Callable[[], Redis]:
    """Return a factory for the server of a caller's client; keeps its connection class (fakeredis has its own)."""
    return _server(pool.connection_class, lasting_options(pool.connection_kwargs))


def _server(connection_class: Any, options: dict[str, Any]) -> Callable[[], Redis]:
    if connection_class is not None:
        options = {"connection_class": connection_class, **options}
    return lambda: Redis.from_pool(ConnectionPool(**options))
