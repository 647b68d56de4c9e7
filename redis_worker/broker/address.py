"""Where Redis is: a URL, or a caller's client, as a recipe for opening clients of one's own.

Every client opened here has no socket timeout and no retries: redis-py's defaults issue a blocking
command again after five seconds, and a task could be moved twice. Whoever uses the client watches
over its liveness (connection.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode, ClusterPubSub
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from redis_worker.vocabulary.errors import ConfigurationError

Client: TypeAlias = "Redis | RedisCluster"

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

_CONNECT_TIMEOUT = 5.0
# What a copied set of connection arguments must not take along: settings made anew below, limits
# meant for the caller's own connections, and references to the client or pool they came from.
_NOT_COPIED = frozenset((
    "retry", "retry_on_timeout", "retry_on_error", "socket_timeout", "max_connections",
    "connection_pool", "himport_registry", "event_dispatcher",
    "response_callbacks", "oss_cluster_maint_notifications_handler",
))  # fmt: skip
_PLAIN = re.compile(r"[\w.%-]*")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")
_ENCODE = "characters such as / ? # [ @ : in a user name or password must be percent-encoded (/ is %2F)"


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
    """`url` with its password, and any password among its options, replaced by ***.

    It may be no valid URL: a password that should have been percent-encoded can hold anything, so
    all that stands before the last @ is hidden, but for a plain user name.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    credentials, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = credentials.partition(":")
        place = f"{user if colon and _PLAIN.fullmatch(user) else ''}{colon}***@{place}"
    elif not all(_HOST.fullmatch(host) for host in re.split("[/?#]", rest)[0].split(",")):
        place = "***"  # what stands in place of a port may be a password whose @host was forgotten
    place, question, query = place.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&"))
    shown = "&".join(f"{key}{equals}{'***' if 'password' in unquote(key) else value}" for key, equals, value in pairs)
    return f"{scheme}{separator}{place}{question}{shown}"


def _from_url(url: str) -> Address:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise ConfigurationError(f"the Redis URL {mask(url)!r} must begin with one of {known}")
    try:
        parts, options = _parsed(url)
        if scheme.endswith("+sentinel"):
            address = _sentinel_url(mask(url), parts, options)
        elif scheme.endswith("+cluster"):
            address = _cluster_url(mask(url), parts, options)
        else:
            address = _server_url(mask(url), parts, options)
        _try_out(address)
    except (ValueError, TypeError, OSError, RedisError) as error:
        raise ConfigurationError(f"the Redis URL {mask(url)!r} is not valid: {_reason(error)}") from None
    return address


def _parsed(url: str) -> tuple[SplitResult, dict[str, Any]]:
    """The parts of `url`, and its options (`?…`) as redis-py reads them. Raises ValueError, without a password."""
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(_ENCODE) from None  # what urllib says quotes the URL
    if parts.fragment:
        raise ValueError(_ENCODE)
    sentinels = {key: value for key, value in pairs if key.startswith("sentinel_")}
    options = _options({key: value for key, value in pairs if key not in sentinels})
    options.update(_credentials(parts))
    if sentinels:
        options["sentinels"] = _options({key.removeprefix("sentinel_"): value for key, value in sentinels.items()})
    return parts, options


def _options(texts: dict[str, str]) -> dict[str, Any]:
    return {**parse_url(f"redis://?{urlencode(texts)}")}


def _credentials(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    given = {"username": unquote(user), "password": unquote(password)}
    return {key: value for key, value in given.items() if value}


def _nodes(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """The hosts of `user:password@host1:port1,host2:port2`."""
    nodes = []
    for item in parts.netloc.rpartition("@")[2].split(","):
        try:
            node = urlsplit(f"//{item}")
            port = node.port
        except ValueError:
            raise ValueError(f"a host or port cannot be read; {_ENCODE}") from None
        if not node.hostname:
            raise ValueError(f"a host is missing; {_ENCODE}")
        nodes.append((node.hostname, default_port if port is None else port))
    return nodes


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"the database must be a number, as in …/0; {_ENCODE}")
    return int(text)


def _try_out(address: Address) -> None:
    """Make a connection without opening it: what redis-py cannot use it then refuses, not in the midst of work."""
    client = address.open()
    if isinstance(client, RedisCluster):
        connection = client.startup_nodes[0].acquire_connection()
    else:
        connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    if isinstance(connection, SSLConnection):
        connection.ssl_context.get()  # reads the certificates


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, TypeError) and (unknown := re.search(r"unexpected keyword argument '(\w+)'", text)):
        return f"there is no option {unknown[1]!r}"
    if isinstance(error, OSError):
        return f"its certificates or key cannot be read: {text}"
    return text


def _server_url(name: str, parts: SplitResult, options: dict[str, Any]) -> Address:
    """`redis://user:password@host:6379/0?…`, `rediss://…`, `unix://user:password@/path?db=0`."""
    if parts.scheme == "unix":
        if parts.netloc.rpartition("@")[2] or not parts.path:
            raise ValueError("name the socket by its whole path, as in unix:///run/redis.sock?db=0")
    else:
        if parts.netloc.rpartition("@")[2]:
            [node, *more] = _nodes(parts, 6379)
            if more:
                raise ValueError("several hosts are for redis+sentinel:// and redis+cluster://")
            options["host"], options["port"] = node
        if database := parts.path.strip("/"):
            options.setdefault("db", _database(database))
    path = parts.path if parts.scheme == "unix" else ""
    given = {**parse_url(f"{parts.scheme}://{path}"), **options}
    connection_class = given.pop("connection_class", None)
    lasting = _lasting(given)
    return Address(name, lambda: _open_pool(connection_class, lasting))


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
        if key not in _NOT_COPIED and not key.startswith(("maint_notifications", "maintenance_", "orig_"))
    }
    # Without a limit of its own, connecting would be limited by the socket timeout, which is none.
    if copied.get("socket_connect_timeout") is None:
        copied["socket_connect_timeout"] = _CONNECT_TIMEOUT
    return copied | {"socket_timeout": None, "retry": _no_retry(), "decode_responses": False}


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _sentinel_url(name: str, parts: SplitResult, options: dict[str, Any]) -> Address:
    """`redis+sentinel://user:password@host1:26379,host2/service/0?sentinel_password=…`.

    With rediss+sentinel the sentinels are spoken to by TLS too, with the same `ssl_…` options where
    they have none of their own (`sentinel_ssl_…`).
    """
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("name the sentinel service, as in redis+sentinel://host:26379/mymaster/0")
    if database:
        options.setdefault("db", _database(database))
    sentinels = options.pop("sentinels", {})
    tls = parts.scheme.startswith("rediss")
    if tls:
        shared = {key: value for key, value in options.items() if key.startswith("ssl_")}
        sentinels = {"ssl": "true"} | shared | sentinels
    if "ssl" in sentinels:
        sentinels["ssl"] = sentinels["ssl"].lower() in ("true", "1", "yes")
    lasting = _lasting(options)
    return _sentinel(name, _nodes(parts, 26379), sentinels, {}, unquote(service), {"ssl": tls, **lasting})


def _from_sentinel(pool: SentinelConnectionPool) -> Address:
    if not pool.is_master:
        raise ConfigurationError(
            f"the client of the sentinel service {pool.service_name} is one of its replicas, which take no writes: "
            f"use Sentinel.master_for({pool.service_name!r})"
        )
    manager = pool.sentinel_manager
    nodes = []
    for sentinel in manager.sentinels:
        known = sentinel.connection_pool.connection_kwargs
        nodes.append((known["host"], known["port"]))
    options = {key: value for key, value in pool.connection_kwargs.items() if key not in ("host", "port")}
    return _sentinel(
        f"sentinel service {pool.service_name}",
        nodes,
        manager.sentinel_kwargs,
        {"min_other_sentinels": manager.min_other_sentinels, "force_master_ip": manager._force_master_ip},
        pool.service_name,
        {"connection_class": pool.connection_class, "check_connection": pool.check_connection, **_lasting(options)},
    )


def _sentinel(
    name: str,
    nodes: list[tuple[str, int]],
    sentinel_options: dict[str, Any],
    manager_options: dict[str, Any],
    service: str,
    options: dict[str, Any],
) -> Address:
    known = {key: value for key, value in sentinel_options.items() if key not in _NOT_COPIED} | {
        # Sentinels are asked, not waited for; and one that does not answer has others beside it.
        "socket_timeout": _CONNECT_TIMEOUT,
        "retry": _no_retry(),
    }

    def open_client() -> Redis:
        sentinel = Sentinel(nodes, sentinel_kwargs=known, **manager_options)  # type: ignore[no-untyped-call]
        pool = SentinelConnectionPool(service, sentinel, **options)  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)

    return Address(name, open_client)


def _cluster_url(name: str, parts: SplitResult, options: dict[str, Any]) -> Address:
    """`redis+cluster://user:password@host1:6379,host2:6379`."""
    if parts.path.strip("/") not in ("", "0") or options.pop("db", 0):
        raise ValueError("Redis Cluster has only database 0")
    tls = parts.scheme.startswith("rediss")
    return _cluster(name, _nodes(parts, 6379), {"ssl": tls, **_lasting(options)})


def _from_cluster(client: RedisCluster) -> Address:
    manager = client.nodes_manager
    # Those the caller named first, then those it has found: the former may have gone by now.
    known = {node.name: node for node in (*client.startup_nodes, *manager.startup_nodes.values())}
    nodes = [(node.host, int(node.port)) for node in known.values()]
    options = _lasting(client.connection_kwargs)
    # Where the caller reads from replicas, this is a method of its client that makes connections read-only.
    options.pop("redis_connect_func", None)
    options["ssl"] = issubclass(options.pop("connection_class"), SSLConnection)
    options |= {"require_full_coverage": manager.require_full_coverage, "address_remap": manager.address_remap}
    return _cluster(f"cluster {nodes[0][0]}:{nodes[0][1]}", nodes, options)


def _cluster(name: str, nodes: list[tuple[str, int]], options: dict[str, Any]) -> Address:
    def open_client() -> RedisCluster:
        return _Cluster(startup_nodes=[ClusterNode(host, port) for host, port in nodes], **options)

    return Address(name, open_client, cluster=True)


class _Cluster(RedisCluster):
    def pubsub(self, *args: Any, **options: Any) -> ClusterPubSub:
        return _ClusterPubSub(self, *args, **options)


class _ClusterPubSub(ClusterPubSub):
    """redis-py's needs to know the cluster beforehand, and stays with the first node it was given, dead or alive."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        connection: Any = self.connection
        if connection is None or not connection.is_connected:
            if self.connection_pool is not None:  # the node it was given cannot be reached: have it choose again,
                await self.aclose()
                self.connection_pool = None  # type: ignore[assignment]
                await self.cluster.aclose()  # among the nodes there are now
            await self.cluster.initialize()
        return await super().execute_command(*args, **options)
