"""Delayed tasks: they wait in a sorted set until due by the server's clock."""

from __future__ import annotations

import math
import os
import random
import secrets
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import chain, count

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.ports import Observer
from redis_worker.vocabulary.checks import check_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused
from redis_worker.vocabulary.priorities import DEFAULT

# Most tasks promoted in one step, which blocks all other clients of the server.
_BATCH = 1000
# Longest sleep of the promoter, in seconds, while a task is delayed (the server's clock may be set), and while none is.
_MAX_SLEEP, _UNTIL_CHANGED = 1.0, 3600.0
# Workers check at random moments after the due time, so that most find the task already moved.
_SPREAD = 0.02


# Largest time, in seconds, whose milliseconds are exact in Lua and in a sorted set.
_END_OF_TIME = 2**52 / 1000


_process = secrets.token_hex(3)
_numbers = count()


def _forked() -> None:
    global _process  # noqa: PLW0603
    _process = secrets.token_hex(3)


os.register_at_fork(after_in_child=_forked)


def new_token(priority: str = DEFAULT) -> str:
    """Return a unique token: it keeps identical delayed tasks apart, and tasks due at the same time in order.

    It ends with the priority of the task, unless that is `default`.
    """
    token = f"{time.time_ns():016x}{next(_numbers) % 2**32:08x}{_process}"
    return token if priority == DEFAULT else f"{token}@{priority}"


async def delay_tasks(
    connection: Connection,
    keys: Keys,
    raws: Sequence[bytes],
    *,
    delay: Duration | None,
    at: datetime | None,
    priority: str = DEFAULT,
) -> None:
    """Delay tasks by `delay` or until the time `at`, by the server's clock. Raises as `due_time` does."""
    when, how = due_time(delay, at)
    items = chain.from_iterable((new_token(priority), raw) for raw in raws)
    await connection.run("schedule", [keys.delayed], [keys.wake, when, how, *items])


def due_time(delay: Duration | None, at: datetime | None) -> tuple[int, str]:
    """Return a due time as the scripts want it: ms and "in", from now on, or "at", by the server's clock.

    Raises ValueError if both are given or the time is not valid, ConfigurationError if `delay` is not a duration.
    """
    if delay is not None and at is not None:
        raise ValueError("give a delay or a time, not both")
    if at is not None:
        if at.tzinfo is None:
            raise ValueError(f"the time {at.isoformat()} needs a time zone")
        when, how = at.timestamp(), "at"
    else:
        when, how = 0.0 if delay is None else check_seconds("delay", delay), "in"
    if not 0 <= when < _END_OF_TIME:
        raise ValueError(f"the delay must be between 0 and {_END_OF_TIME:.0f} s, got {when:g} s")
    return math.ceil(when * 1000), how


class Promoter:
    """The role that appends due tasks to the queue. Every worker runs one; an atomic script avoids duplicates."""

    def __init__(self, connection: Connection, keys: Keys, doorbell: Doorbell, observer: Observer) -> None:
        """`doorbell` wakes it when a task is delayed."""
        self._connection = connection
        self._keys = keys
        self._doorbell = doorbell
        self._observer = observer

    async def run(self) -> None:
        """Promote tasks until cancelled."""
        with self._doorbell.bell(self._keys.delayed) as bell:
            while True:
                await bell.wait(await self._promote(), poll=_MAX_SLEEP)

    async def _promote(self) -> float:
        """Promote due tasks. Returns the seconds until the next check."""
        try:
            keys = [self._keys.delayed, self._keys.waiting]
            promoted, next_due = await self._connection.run("promote", keys, [_BATCH])
        except DamagedKey as error:
            self._observer.damaged(error)
            return _MAX_SLEEP
        except (Disconnected, Refused):
            return _MAX_SLEEP  # the pool gets the same error and reports it
        if promoted == _BATCH:
            return 0.0
        if next_due < 0:
            return _UNTIL_CHANGED
        return min(_MAX_SLEEP, float(next_due) / 1000 + random.uniform(0.001, _SPREAD))
