"""Missed instants: those that passed while no process could fire them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import islice

from redis_worker.broker.cron import JobState
from redis_worker.cron.report import Report
from redis_worker.cron.schedule import Schedule
from redis_worker.cron.settings import JobSettings
from redis_worker.engine.reconnect import Reconnect

LATE = 60_000
"""An instant is missed if it is not claimed within so many ms; until then it is fired late."""

# Instants are counted up to this number, and queued in steps of this size, so as not to block the event loop.
_COUNTED, _BATCH = 100_000, 500


class Missed:
    """The catch-up of missed instants: drops or fires them, as the settings say."""

    def __init__(
        self,
        settings: JobSettings,
        schedule: Schedule,
        state: JobState,
        redis: Reconnect,
        report: Report,
        stopping: asyncio.Event,
        fire: Callable[[int], Awaitable[bool]],
    ) -> None:
        """`fire` claims a missed instant, and returns True if it did."""
        self._catchup = settings.catchup
        self._window = int(settings.catchup_window * 1000)
        self._pushes = settings.push is not None
        self._schedule = schedule
        self._state = state
        self._redis = redis
        self._report = report
        self._stopping = stopping
        self._fire = fire

    async def make_up(self, cursor: int, now: int) -> int:
        """Drop or fire all instants missed after `cursor`, unless another process did. Return the new cursor, in ms."""
        while True:
            last = await self._redis.call(self._state.open, self._stopping)
            start, end = max(cursor, last), now - LATE
            if start >= end:
                return start
            kept = end if self._catchup == "skip" else max(start, min(end, now - self._window))
            if self._catchup == "last" and (latest := self._last(kept, end)) is not None:
                kept = _ms(latest) - 1
            if await self._drop(last, start, kept):
                break
        if self._catchup == "all":
            await self._make_up_for_all(kept, end)
        elif self._catchup == "last" and kept < end:
            await self._make_up_for_last(kept, end)
        return end

    async def _drop(self, last: int, start: int, until: int) -> bool:
        """Drop the instants missed up to `until`. Return False if another process has handled some of them."""
        number = await self._count(start, until)
        if not number:
            return True
        if not await self._redis.call(lambda: self._state.give_up(last, until, number), self._stopping):
            return False
        result = "dropped"
        if self._catchup == "last" and number:
            result = "dropped, only the last one is caught up"
        elif self._catchup == "all":
            result = "dropped, they are older than the catch-up window"
        first = self._schedule.next(start)
        counted = str(number) if number < _COUNTED else f"{number} or more"
        self._report.missed(f"{counted} instants", first, self._last(start, until) or first, result)
        return True

    async def _make_up_for_last(self, start: int, end: int) -> None:
        for instant in self._schedule.between(start, end):
            if await self._fire(_ms(instant)):
                self._report.missed("1 instant", instant, instant, "caught up")

    async def _make_up_for_all(self, start: int, end: int) -> None:
        """Catch up oldest first: push tasks at once, queue functions to run one after the other."""
        made_up = 0
        first = last = None
        instants = self._schedule.between(start, end)
        while batch := list(islice(instants, _BATCH)):
            number = await self._make_up_for(batch)
            if number:
                first, last = first or batch[0], batch[-1]
            made_up += number
            if self._stopping.is_set():
                break  # the rest stays missed, for another process or the next start
        if first is not None and last is not None:
            self._report.missed(f"{made_up} instants", first, last, "caught up")

    async def _make_up_for(self, batch: list[datetime]) -> int:
        if not self._pushes:
            return await self._redis.call(lambda: self._state.queue([*map(_ms, batch)]), self._stopping)
        made_up = 0
        for instant in batch:
            if self._stopping.is_set():
                break
            made_up += await self._fire(_ms(instant))
        return made_up

    async def _count(self, start: int, until: int) -> int:
        instants = self._schedule.between(start, until)
        number = 0
        while some := sum(1 for _ in islice(instants, _BATCH)):
            number += some
            if number >= _COUNTED:
                break
            await asyncio.sleep(0)
        return number

    def _last(self, start: int, end: int) -> datetime | None:
        """Return the last instant after `start` and up to `end`, searching from the end."""
        span = LATE
        while True:
            last = None
            for last in self._schedule.between(max(start, end - span), end):  # noqa: B007 - only the last one is used
                pass
            if last is not None or end - span <= start:
                return last
            span *= 4


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
