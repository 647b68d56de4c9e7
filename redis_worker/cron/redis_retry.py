"""Calls to Redis that are repeated while it is away, or a key is damaged."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis_worker.cron.report import Report
from redis_worker.engine.waiting import happens
from redis_worker.vocabulary.errors import DamagedKey, Disconnected
from redis_worker.vocabulary.outages import Outages

T = TypeVar("T")

# The first pause and the longest, in seconds: an instant can be fired up to a minute late.
_FIRST, _LONGEST = 0.5, 10.0


class GivenUp(Exception):
    """Redis was away, or a key was damaged, and there was a stop."""


class Reach:
    """Repeats what is Disconnected, or needs a damaged key, after pauses that double, until it is done or given up."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._since: float | None = None
        self._damaged = Outages()

    @property
    def away(self) -> bool:
        """True while Redis cannot be reached."""
        return self._since is not None

    async def call(self, operation: Callable[[], Awaitable[T]], end: asyncio.Event) -> T:
        """The result of `operation`. Raises GivenUp where it cannot be had and `end` is set, and Refused."""
        pause = _FIRST
        while True:
            try:
                result = await operation()
            except (Disconnected, DamagedKey) as error:
                self._trouble(error)
                if await happens(end, pause * random.uniform(0.5, 1.0)):
                    raise GivenUp(str(error)) from None
                pause = min(_LONGEST, pause * 2)
                continue
            if self._since is not None:
                self._report.back(time.monotonic() - self._since)
                self._since = None
            return result

    def _trouble(self, error: Disconnected | DamagedKey) -> None:
        if isinstance(error, DamagedKey):
            if self._damaged.begins(error.key):
                self._report.damaged(error)
        elif self._since is None:
            self._since = time.monotonic()
            self._report.away(error)
