"""Calls to Redis that are repeated while it is away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis_worker.cron.report import Report
from redis_worker.engine.waiting import happens
from redis_worker.vocabulary.errors import Disconnected

T = TypeVar("T")

# The first pause and the longest, in seconds: an instant can be fired up to a minute late.
_FIRST, _LONGEST = 0.5, 10.0


class GivenUp(Exception):
    """Redis was away, and there was a stop."""


class Reach:
    """Repeats what is Disconnected, after pauses that double, with jitter, until it is reached or given up."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._since: float | None = None

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
            except Disconnected as error:
                if self._since is None:
                    self._since = time.monotonic()
                    self._report.away(error)
                if await happens(end, pause * random.uniform(0.5, 1.0)):
                    raise GivenUp("Redis is away") from None
                pause = min(_LONGEST, pause * 2)
                continue
            if self._since is not None:
                self._report.back(time.monotonic() - self._since)
                self._since = None
            return result
