"""Connection arguments of the clients opened here: no limit on waiting for a reply, no retries.

redis-py's defaults issue a blocking command again after five seconds, which could move a task twice.
The caller of the client checks its liveness (connection.py).
"""

from __future__ import annotations

from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_TIMEOUT = 5.0
"""Default limit for connecting, in seconds."""

# Arguments not to copy: settings made anew below, limits meant for the caller's connections,
# and references to the client or pool they came from.
_NOT_COPIED = frozenset((
    "retry", "retry_on_timeout", "retry_on_error", "socket_timeout", "max_connections",
    "connection_pool", "himport_registry", "event_dispatcher",
    "response_callbacks", "oss_cluster_maint_notifications_handler",
))  # fmt: skip


def lasting_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return `options` for a client that waits for replies without limit and never retries."""
    kept = {
        key: value
        for key, value in copyable_options(options).items()
        if not key.startswith(("maint_notifications", "maintenance_", "orig_"))
    }
    # Without it the socket timeout would limit connecting, and that is None.
    if kept.get("socket_connect_timeout") is None:
        kept["socket_connect_timeout"] = CONNECT_TIMEOUT
    return kept | {"socket_timeout": None, "retry": no_retry(), "decode_responses": False}


def copyable_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return those of a caller's connection arguments that suit another client."""
    return {key: value for key, value in options.items() if key not in _NOT_COPIED}


def no_retry() -> Retry:
    """Return a redis-py retry policy that never retries."""
    return Retry(NoBackoff(), 0)
