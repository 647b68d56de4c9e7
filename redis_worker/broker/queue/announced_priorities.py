"""The priorities of a queue, as its workers and submitters announce them to those that do not know them."""

from __future__ import annotations

from collections.abc import Sequence

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import call_on, readable
from redis_worker.broker.keys import Keys
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.priorities import DEFAULT, Priorities, check_priority, is_priority


async def announce_priorities(connection: Connection, keys: Keys) -> None:
    """Announce the priorities of `keys`, if there are any. Raises Disconnected or Refused."""
    if keys.priorities is not None:
        places = [part for place in enumerate(keys.priorities.names) for part in place]
        await call_on(connection, keys.announced, "zset", "ZADD", *places)


async def announced_lists(connection: Connection, keys: Keys) -> list[str]:
    """Return the lists of waiting tasks, the first priority first. Raises Disconnected or Refused."""
    return lists_of(keys, await _announced(connection, keys))


def lists_of(keys: Keys, announced: Sequence[bytes]) -> list[str]:
    """Return the lists of waiting tasks, those of the `announced` priorities in their order."""
    names = _names(announced)
    return [*map(keys.list_with, names if DEFAULT in names else [*names, DEFAULT])]


async def check_announced(connection: Connection, keys: Keys, priority: str) -> bool:
    """Raise ConfigurationError if the queue has no such `priority`; return False if none was announced so far.

    Raises Disconnected or Refused.
    """
    if not is_priority(priority):
        raise ConfigurationError(f"a priority is a name of letters, digits, _, - and dots, not {priority!r}")
    names = _names(await _announced(connection, keys))
    if names:
        check_priority(keys.waiting, priority, Priorities(tuple(names)))
    return bool(names)


async def _announced(connection: Connection, keys: Keys) -> list[bytes]:
    announced: list[bytes] = await call_on(connection, keys.announced, "zset", "ZRANGE", 0, -1)
    return announced


def _names(announced: Sequence[bytes]) -> list[str]:
    return [name for name in readable(announced)[0] if is_priority(name)]
