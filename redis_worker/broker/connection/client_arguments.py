"""Connection arguments of the clients we open: they wait as long as they must and repeat no command.

redis-py's defaults issue a blocking command again after five seconds, and a task could be moved twice.
Whoever uses the client watches over its liveness (connection.py).
"""

from __future__ import annotations

from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_TIMEOUT = 5.0
"""How long connecting may take where nothing else is said, in seconds."""

# What a copied set of connection arguments must not take along: settings made anew below, limits
# meant for the caller's own connections, and references to the client or pool they came from.
_NOT_COPIED = frozenset((
    "retry", "retry_on_timeout", "retry_on_error", "socket_timeout", "max_connections",
    "connection_pool", "himport_registry", "event_dispatcher",
    "response_callbacks", "oss_cluster_maint_notifications_handler",
))  # fmt: skip


def lasting(options: dict[str, Any]) -> dict[str, Any]:
    """`options` for a client that waits for replies without end and tries nothing again."""
    kept = {
        key: value
        for key, value in copied(options).items()
        if not key.startswith(("maint_notifications", "maintenance_", "orig_"))
    }
    # Without a limit of its own, connecting would be limited by the socket timeout, which is none.
    if kept.get("socket_connect_timeout") is None:
        kept["socket_connect_timeout"] = CONNECT_TIMEOUT
    return kept | {"socket_timeout": None, "retry": no_retry(), "decode_responses": False}


def copied(options: dict[str, Any]) -> dict[str, Any]:
    """Those of a caller's connection arguments that may serve another client."""
    return {key: value for key, value in options.items() if key not in _NOT_COPIED}


def no_retry() -> Retry:
    """A policy of redis-py's that tries nothing again."""
    return Retry(NoBackoff(), 0)
