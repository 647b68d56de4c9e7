"""A hint for a queue that does not exist: the topic of the same name."""

from __future__ import annotations

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import QUEUES, TOPICS, Keys, topic_list, topic_of
from redis_worker.vocabulary.errors import Disconnected, Refused


async def meant_list(connection: Connection, key: str) -> str | None:
    """Return the list of the topic `key`, if this topic exists and no queue `key`, otherwise None."""
    if topic_of(key) is not None:
        return None
    try:
        if await _is_there(connection, key) or await connection.call("SISMEMBER", QUEUES, key):
            return None
        named = topic_list(key)
        if await connection.call("SISMEMBER", TOPICS, key) or await _is_there(connection, named):
            return named
    except (Disconnected, Refused):
        pass  # a failed hint raises no error
    return None


async def _is_there(connection: Connection, key: str) -> bool:
    keys = Keys(key)
    return bool(await connection.call("EXISTS", keys.waiting, keys.delayed, keys.dead, keys.workers))
