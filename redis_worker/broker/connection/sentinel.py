"""Factories for clients of the current master of a Sentinel service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, unquote

from redis.asyncio import Redis, Sentinel
from redis.asyncio.sentinel import SentinelConnectionPool

from redis_worker.broker.connection.client_arguments import CONNECT_TIMEOUT, copyable_options, lasting_options, no_retry
from redis_worker.broker.connection.url import database, nodes
from redis_worker.vocabulary.errors import ConfigurationError


def sentinel_of_url(parts: SplitResult, options: dict[str, Any]) -> Callable[[], Redis]:
    """Return a factory for `redis+sentinel://user:password@host1:26379,host2/service/0?sentinel_password=…`.

    With rediss+sentinel the Sentinels are reached by TLS too, with the same `ssl_…` options unless they have
    separate ones (`sentinel_ssl_…`). Raises ValueError.
    """
    service, _, number = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("name the sentinel service, as in redis+sentinel://host:26379/mymaster/0")
    if number:
        options.setdefault("db", database(number))
    sentinels = options.pop("sentinels", {})
    tls = parts.scheme.startswith("rediss")
    if tls:
        shared = {key: value for key, value in options.items() if key.startswith("ssl_")}
        sentinels = {"ssl": "true"} | shared | sentinels
    if "ssl" in sentinels:
        sentinels["ssl"] = sentinels["ssl"].lower() in ("true", "1", "yes")
    return _sentinel(nodes(parts, 26379), sentinels, {}, unquote(service), {"ssl": tls, **lasting_options(options)})


def sentinel_of_pool(pool: SentinelConnectionPool) -> Callable[[], Redis]:
    """Return a factory for the service of a caller's client. Raises ConfigurationError for a client of replicas."""
    if not pool.is_master:
        raise ConfigurationError(
            f"the client of the sentinel service {pool.service_name} uses its replicas, which accept no writes: "
            f"use Sentinel.master_for({pool.service_name!r})"
        )
    manager = pool.sentinel_manager
    known = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    options = {key: value for key, value in pool.connection_kwargs.items() if key not in ("host", "port")}
    return _sentinel(
        [(sentinel["host"], sentinel["port"]) for sentinel in known],
        manager.sentinel_kwargs,
        {"min_other_sentinels": manager.min_other_sentinels, "force_master_ip": manager._force_master_ip},
        pool.service_name,
        {
            "connection_class": pool.connection_class,
            "check_connection": pool.check_connection,
            **lasting_options(options),
        },
    )


def _sentinel(
    sentinels: list[tuple[str, int]],
    sentinel_options: dict[str, Any],
    manager_options: dict[str, Any],
    service: str,
    options: dict[str, Any],
) -> Callable[[], Redis]:
    # With a timeout: if one Sentinel does not answer, the next one is asked.
    sentinel_arguments = copyable_options(sentinel_options) | {"socket_timeout": CONNECT_TIMEOUT, "retry": no_retry()}

    def open_client() -> Redis:
        manager = Sentinel(sentinels, sentinel_kwargs=sentinel_arguments, **manager_options)  # type: ignore[no-untyped-call]
        pool = SentinelConnectionPool(service, manager, **options)  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)

    return open_client
