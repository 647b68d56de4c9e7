"""Where Redis is: a URL, or a caller's client, as a recipe for opening clients of one's own, and a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError

from redis_worker.broker.cluster import cluster_of_client, cluster_of_url
from redis_worker.broker.sentinel import sentinel_of_pool, sentinel_of_url
from redis_worker.broker.server import server_of_pool, server_of_url
from redis_worker.broker.url import parsed
from redis_worker.vocabulary.errors import ConfigurationError

Client: TypeAlias = "Redis | RedisCluster"

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

_PLAIN = re.compile(r"[\w.%-]*")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")


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
        return _from_pool(redis.connection_pool)
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
    name = mask(url)
    if scheme not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise ConfigurationError(f"the Redis URL {name!r} must begin with one of {known}")
    try:
        parts, options = parsed(url)
        if scheme.endswith("+sentinel"):
            address = Address(name, sentinel_of_url(parts, options))
        elif scheme.endswith("+cluster"):
            address = Address(name, cluster_of_url(parts, options), cluster=True)
        else:
            address = Address(name, server_of_url(parts, options))
        _try_out(address)
    except (ValueError, TypeError, OSError, RedisError) as error:
        raise ConfigurationError(f"the Redis URL {name!r} is not valid: {_reason(error)}") from None
    return address


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


def _from_pool(pool: Any) -> Address:
    if isinstance(pool, SentinelConnectionPool):
        return Address(f"sentinel service {pool.service_name}", sentinel_of_pool(pool))
    options = pool.connection_kwargs
    where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return Address(f"{where}/{options.get('db') or 0}", server_of_pool(pool))


def _from_cluster(client: RedisCluster) -> Address:
    node = client.startup_nodes[0]
    return Address(f"cluster {node.host}:{node.port}", cluster_of_client(client), cluster=True)
