"""Addresses of Redis: built from a URL or a caller's client, they open clients and have a printable name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError

from redis_worker.broker.connection.cluster import cluster_of_client, cluster_of_url
from redis_worker.broker.connection.sentinel import sentinel_of_pool, sentinel_of_url
from redis_worker.broker.connection.server import server_of_pool, server_of_url
from redis_worker.broker.connection.url import parse, without_values
from redis_worker.vocabulary.errors import ConfigurationError

Client: TypeAlias = "Redis | RedisCluster"

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
# Providers of Valkey write valkey:// and valkeys://.
_VALKEY = re.compile(r"valkey(?=s?(\+\w+)?://)", re.IGNORECASE)

_PLAIN = re.compile(r"[\w.-]*")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]*\]|[\w.-]*)(:\d{0,5})?")
_DATABASE = re.compile(r"/*(\d{1,4})?/*")
_NAME = re.compile(r"[A-Za-z_]+")
# Options and values that cannot be secrets.
_OPTION = re.compile(
    r"(sentinel_)?(db|protocol|socket_(connect_)?timeout|socket_keepalive|health_check_interval|max_connections"
    r"|retry_on_timeout|decode_responses|ssl_check_hostname|timeout)"
)
_FLAG = re.compile(r"-?\d{1,5}(\.\d{1,3})?|true|false|yes|no|on|off", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """One Redis server or cluster: a factory for clients, and a name without the password."""

    name: str
    open: Callable[[], Client]
    cluster: bool = False


def address_of(redis: str | Client) -> Address:
    """Return the address for a URL, or for the server of a client. Raises ConfigurationError."""
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
    """Return `url` with *** for every part that may be a secret; only parts known to be harmless are shown.

    The URL may not be valid: a password that should have been percent-encoded can hold anything, and may stand
    anywhere, as in ?PASSWORD=… or in place of the database. Shown are a plain user name before a password, hosts and
    ports, the service of a sentinel, the path of a socket, and options that are numbers or flags.
    """
    scheme, separator, rest = _in_redis_scheme(url).partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        return "***"
    place, question, query = _parted(rest)
    if place is None:
        return f"{scheme}://***"
    credentials, at, node = place.rpartition("@")
    hosts, slash, path = node.partition("/")
    user, colon, password = credentials.partition(":")
    shown_user = user if password and _PLAIN.fullmatch(user) else ""
    is_plain = not hosts if scheme == "unix" else all(_HOST.fullmatch(host) for host in hosts.split(","))
    shown_hosts = hosts if is_plain else "***"
    pairs = (pair.partition("=") for pair in query.split("&"))
    options = "&".join(_option(*pair) for pair in pairs) if query else ""
    return f"{scheme}://{shown_user}{colon}{at and '***@'}{shown_hosts}{slash}{_path(scheme, path)}{question}{options}"


def _in_redis_scheme(url: str) -> str:
    """Return `url` with the scheme redis:// in place of valkey://."""
    return f"redis{url[found.end() :]}" if (found := _VALKEY.match(url)) else url


def _parted(rest: str) -> tuple[str | None, str, str]:
    """Return the parts before and after the question mark; None if the password could be in either part."""
    place, question, query = rest.partition("?")
    authority = re.split("[/?#]", rest)[0]
    if "#" in rest or "@" in rest.removeprefix(authority):
        return None, "", ""
    return place, question, query


def _path(scheme: str, path: str) -> str:
    if scheme == "unix":
        return path
    service, slash, number = path.partition("/") if scheme.endswith("+sentinel") else ("", "", path)
    shown_service = service if _PLAIN.fullmatch(service) else "***"
    return f"{shown_service}{slash}{number if _DATABASE.fullmatch(number) else '***'}"


def _option(key: str, equals: str, value: str) -> str:
    shown_key = key if equals and _NAME.fullmatch(key) else "***"
    return f"{shown_key}{equals}{value if _OPTION.fullmatch(key) and _FLAG.fullmatch(value) else '***'}"


def _from_url(url: str) -> Address:
    url = _in_redis_scheme(url)
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    name = mask(url)
    if scheme not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise ConfigurationError(f"the Redis URL must begin with one of {known}")
    try:
        parts, options = parse(url)
        if scheme.endswith("+sentinel"):
            address = Address(name, sentinel_of_url(parts, options))
        elif scheme.endswith("+cluster"):
            address = Address(name, cluster_of_url(parts, options), cluster=True)
        else:
            address = Address(name, server_of_url(parts, options))
        _try_out(address)
    except (ValueError, TypeError, OSError, RedisError) as error:
        reason = without_values(url, _reason(error))
        raise ConfigurationError(f"the Redis URL {name!r} is not valid: {reason}") from None
    return address


def _try_out(address: Address) -> None:
    """Build a connection without opening it, so that redis-py rejects bad options now and not during work."""
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
        return f"unknown option {unknown[1]!r}"
    if isinstance(error, OSError):
        return f"cannot read its certificates or key: {text}"
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
