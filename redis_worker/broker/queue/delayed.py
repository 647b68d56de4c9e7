"""Tasks put off: they wait in a sorted set of their own, and the server's clock says when they are due."""

from __future__ import annotations

import asyncio
import math
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from itertools import chain, count

from redis_worker.broker.connection.address import Address
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.error_translation import is_defect
from redis_worker.broker.connection.subscription import Subscription
from redis_worker.broker.keys import Keys
from redis_worker.engine.waiting import happens
from redis_worker.ports import Observer
from redis_worker.vocabulary.checks import check_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused

# So many tasks are promoted in one step: it holds up everybody else on the server.
_BATCH = 1000
# How long one wait for a message takes, in seconds.
_LISTEN = 60.0
# How long the promoter sleeps when nothing is known to be due: its subscription wakes it earlier.
_LONGEST = 1.0
# Workers look a little after the time, each at another moment: most then find that somebody else has been there.
_SPREAD = 0.02


# Milliseconds up to here are exact in Lua and in a sorted set, in seconds.
_END_OF_TIME = 2**52 / 1000


_process = secrets.token_hex(3)
_numbers = count()


def _forked() -> None:
    global _process  # noqa: PLW0603
    _process = secrets.token_hex(3)


os.register_at_fork(after_in_child=_forked)


def new_token() -> str:
    """Tells two tasks of the same bytes apart while they are put off, and keeps those due at once in order."""
    return f"{time.time_ns():016x}{next(_numbers) % 2**32:08x}{_process}"


async def put_off(
    connection: Connection, keys: Keys, raws: Sequence[bytes], *, delay: Duration | None, at: datetime | None
) -> None:
    """Have tasks become due after `delay` or `at` a time, by the server's clock.

    Raises ValueError where the two do not make a time, and ConfigurationError where the delay is none.
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
        raise ValueError(f"the delay must not be negative or beyond all time, got {when:g} s")
    items = chain.from_iterable((new_token(), raw) for raw in raws)
    await connection.run("schedule", [keys.delayed], [keys.wake, math.ceil(when * 1000), how, *items])


class Promoter:
    """Appends tasks that are due to the queue. Every worker does it; one script decides who."""

    def __init__(
        self, connection: Connection, keys: Keys, wait: Callable[[float], Awaitable[None]], observer: Observer
    ) -> None:
        """`wait` returns after so many seconds, or earlier when something has been put off."""
        self._connection = connection
        self._keys = keys
        self._wait = wait
        self._observer = observer

    async def run(self) -> None:
        """Promote, until cancelled."""
        while True:
            await self._wait(await self._promote())

    async def _promote(self) -> float:
        """Promote what is due; in how many seconds to look again."""
        try:
            keys = [self._keys.delayed, self._keys.waiting]
            promoted, next_due = await self._connection.run("promote", keys, [_BATCH])
        except DamagedKey as error:
            self._observer.damaged(error)
            return _LONGEST
        except (Disconnected, Refused):
            return _LONGEST  # the pool meets the same, and says so
        if promoted == _BATCH:
            return 0.0
        return _LONGEST if next_due < 0 else min(_LONGEST, next_due / 1000 + random.uniform(0.001, _SPREAD))


class WakeChannel:
    """Hears when something is put off. Who may not subscribe hears nothing, and looks every second."""

    def __init__(self, address: Address, channel: str) -> None:
        self._address = address
        self._channel = channel
        self._woken = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when something has been put off since the last time, or after so many seconds."""
        await happens(self._woken, seconds)
        self._woken.clear()

    async def run(self) -> None:
        """Listen, until cancelled."""
        connection = Connection(self._address.open(), owned=True)
        try:
            while True:
                try:
                    async with Subscription(connection, self._channel) as subscription:
                        while True:
                            if await subscription.message(_LISTEN) is not None:
                                self._woken.set()
                except Exception as error:
                    if is_defect(error):
                        raise
                    await asyncio.sleep(_LONGEST)
        finally:
            await connection.close()
