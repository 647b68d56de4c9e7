"""Where Redis is: a URL, or a caller's client, as a recipe for opening clients of one's own.

Every client opened here has no socket timeout and no retries: redis-py's defaults issue a blocking
command again after five seconds, and a task could be moved twice. Whoever uses the client watches
over its liveness (connection.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from redis_worker.vocabulary.errors import ConfigurationError

Client: TypeAlias = "Redis | RedisCluster"

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

_CONNECT_TIMEOUT = 5.0
# What a copied set of connection arguments must not take along: settings made anew below, and
# references to the pool they came from.
_NOT_COPIED = ("retry", "retry_on_timeout", "retry_on_error", "connection_pool", "himport_registry", "socket_timeout")


@dataclass(frozen=True, slots=True)
class Address:
    """One Redis: how to open a client to it, and how to name it without its password."""

    name: str
    open: Callable[[], Client]
    cluster: bool = False


def address_of(redis: str | Client) -> Address:
    """The address in a URL, or of the server a client is connected to. Raises ConfigurationError."""
    if isinstance(redis, str):
        return _from_url(redis)
    if isinstance(redis, RedisCluster):
        return _from_cluster(redis)
    if isinstance(redis, Redis):
        pool = redis.connection_pool
        return _from_sentinel(pool) if isinstance(pool, SentinelConnectionPool) else _from_pool(pool)
    raise ConfigurationError(
        f"redis must be a URL or a redis.asyncio client, got {type(redis).__module__}.{type(redis).__name__}"
    )


def mask(url: str) -> str:
    """`url` with its password, and any password among its options, replaced by ***."""
    parts = urlsplit(url)
    netloc = parts.netloc
    if "@" in netloc:
        credentials, _, host = netloc.rpartition("@")
        user, separator, _ = credentials.partition(":")
        netloc = f"{user}{separator}***@{host}" if separator else f"***@{host}"
    query = "&".join(
        f"{key}=***" if "password" in key else f"{key}={value}"
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return urlunsplit(SplitResult(parts.scheme, netloc, parts.path, query, ""))


def _from_url(url: str) -> Address:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise ConfigurationError(f"the Redis URL {mask(url)!r} must begin with one of {known}")
    try:
        if scheme.endswith("+sentinel"):
            return _sentinel_url(url)
        if scheme.endswith("+cluster"):
            return _cluster_url(url)
        options = dict(parse_url(url))
    except ValueError as error:
        raise ConfigurationError(f"the Redis URL {mask(url)!r} is not valid: {error}") from None
    connection_class = options.pop("connection_class", None)
    options = _lasting(options)
    return Address(mask(url), lambda: _open_pool(connection_class, options))


def _from_pool(pool: Any) -> Address:
    """From the pool of a caller's client, whatever its connection class (fakeredis has its own)."""
    options = _lasting(pool.connection_kwargs)
    where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    name = f"{where}/{options.get('db') or 0}"
    return Address(name, lambda: _open_pool(pool.connection_class, options))


def _open_pool(connection_class: Any, options: dict[str, Any]) -> Redis:
    if connection_class is not None:
        options = {"connection_class": connection_class, **options}
    return Redis.from_pool(ConnectionPool(**options))


def _lasting(options: dict[str, Any]) -> dict[str, Any]:
    """Connection arguments for a client that waits as long as it must and never repeats a command."""
    copied = {
        key: value
        for key, value in options.items()
        if key not in _NOT_COPIED and not key.startswith(("maint_notifications", "orig_"))
    }
    copied.setdefault("socket_connect_timeout", _CONNECT_TIMEOUT)
    return copied | {"socket_timeout": None, "retry": _no_retry(), "decode_responses": False}


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _nodes(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """The hosts of `user:password@host1:port1,host2:port2`."""
    nodes = []
    for item in parts.netloc.rpartition("@")[2].split(","):
        node = urlsplit(f"//{item}")
        if not node.hostname:
            raise ValueError("a host is missing")
        nodes.append((node.hostname, node.port or default_port))
    return nodes


def _credentials(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    given = {"username": unquote(user), "password": unquote(password)}
    return {key: value for key, value in given.items() if value}


def _sentinel_url(url: str) -> Address:
    """`redis+sentinel://user:password@host1:26379,host2/service/0?sentinel_password=…`."""
    parts = urlsplit(url)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("name the sentinel service, as in redis+sentinel://host:26379/mymaster/0")
    query = dict(parse_qsl(parts.query))
    sentinel_options = {
        key.removeprefix("sentinel_"): value for key, value in query.items() if key.startswith("sentinel_")
    }
    tls = parts.scheme.startswith("rediss")
    if tls:
        sentinel_options["ssl"] = "true"
    options = _credentials(parts) | {"db": int(database or query.get("db", "0"))}
    return _sentinel(mask(url), _nodes(parts, 26379), sentinel_options, service, tls, options)


def _from_sentinel(pool: SentinelConnectionPool) -> Address:
    nodes = []
    for sentinel in pool.sentinel_manager.sentinels:
        known = sentinel.connection_pool.connection_kwargs
        nodes.append((known["host"], known["port"]))
    tls = issubclass(pool.connection_class, SSLConnection)
    options = {key: value for key, value in pool.connection_kwargs.items() if key not in ("host", "port")}
    return _sentinel(
        f"sentinel service {pool.service_name}", nodes, pool.sentinel_manager.sentinel_kwargs,
        pool.service_name, tls, options,
    )  # fmt: skip


def _sentinel(
    name: str,
    nodes: list[tuple[str, int]],
    sentinel_options: dict[str, Any],
    service: str,
    tls: bool,
    options: dict[str, Any],
) -> Address:
    known = {key: value for key, value in sentinel_options.items() if key != "retry"} | {
        "socket_timeout": _CONNECT_TIMEOUT,
        "retry": _no_retry(),
    }
    if "ssl" in known:
        known["ssl"] = str(known["ssl"]).lower() in ("true", "1", "yes")

    def open_client() -> Redis:
        sentinel = Sentinel(nodes, sentinel_kwargs=known)  # type: ignore[no-untyped-call]
        pool = SentinelConnectionPool(service, sentinel, ssl=tls, **_lasting(options))  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)

    return Address(name, open_client)


def _cluster_url(url: str) -> Address:
    """`redis+cluster://user:password@host1:6379,host2:6379`."""
    parts = urlsplit(url)
    if parts.path.strip("/") not in ("", "0"):
        raise ValueError("Redis Cluster has only database 0")
    nodes = _nodes(parts, 6379)
    options = _lasting(_credentials(parts) | {"ssl": parts.scheme.startswith("rediss")})
    return _cluster(mask(url), nodes, options)


def _from_cluster(client: RedisCluster) -> Address:
    nodes = [(node.host, int(node.port)) for node in client.startup_nodes]
    options = _lasting(client.connection_kwargs)
    for derived in ("response_callbacks", "oss_cluster_maint_notifications_handler"):
        options.pop(derived, None)
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    return _cluster(f"cluster {nodes[0][0]}:{nodes[0][1]}", nodes, options)


def _cluster(name: str, nodes: list[tuple[str, int]], options: dict[str, Any]) -> Address:
    def open_client() -> RedisCluster:
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in nodes], **options)

    return Address(name, open_client, cluster=True)
