"""Retries of calls to Redis while it is away, or a key is damaged."""

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

# The first and the longest pause, in seconds: an instant can be fired up to a minute late.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


class GivenUp(Exception):
    """Raised when the job stops while Redis is away, or a key is damaged."""


class RedisRetry:
    """Retries of calls that raise Disconnected or DamagedKey, after doubling pauses, until success or a stop."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._since: float | None = None
        self._damaged = Outages()

    @property
    def away(self) -> bool:
        """True while Redis cannot be reached."""
        return self._since is not None

    async def call(self, operation: Callable[[], Awaitable[T]], end: asyncio.Event) -> T:
        """Return the result of `operation`. Raises Refused, and GivenUp if it still fails when `end` is set."""
        pause = _FIRST_PAUSE
        while True:
            try:
                result = await operation()
            except (Disconnected, DamagedKey) as error:
                self._report_outage(error)
                if await happens(end, pause * random.uniform(0.5, 1.0)):
                    raise GivenUp(str(error)) from None
                pause = min(_LONGEST_PAUSE, pause * 2)
                continue
            if self._since is not None:
                self._report.back(time.monotonic() - self._since)
                self._since = None
            return result

    def _report_outage(self, error: Disconnected | DamagedKey) -> None:
        if isinstance(error, DamagedKey):
            if self._damaged.begins(error.key):
                self._report.damaged(error)
        elif self._since is None:
            self._since = time.monotonic()
            self._report.away(error)
