"""What becomes of instants that passed while nobody was there to fire them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from itertools import islice

from redis_worker.broker.cron import JobState
from redis_worker.cron.redis_retry import Reach
from redis_worker.cron.report import Report
from redis_worker.cron.schedule import Schedule
from redis_worker.cron.settings import JobSettings

LATE = 60_000
"""An instant that cannot be claimed within so many ms is missed; until then it is fired late."""

# Instants are counted up to here, and queued in steps of so many: the event loop has other things to do.
_COUNTED, _BATCH = 100_000, 500


class Missed:
    """Drops what was missed, or makes up for it, as the settings say."""

    def __init__(
        self,
        settings: JobSettings,
        schedule: Schedule,
        state: JobState,
        reach: Reach,
        report: Report,
        stopping: asyncio.Event,
        fire: Callable[[int], Awaitable[bool]],
    ) -> None:
        """`fire` claims an instant, and tells whether it has; it is missed all the same."""
        self._catchup = settings.catchup
        self._window = int(settings.catchup_window * 1000)
        self._pushes = settings.push is not None
        self._schedule = schedule
        self._state = state
        self._reach = reach
        self._report = report
        self._stopping = stopping
        self._fire = fire

    async def make_up(self, cursor: int, now: int) -> int:
        """Deal with all that was missed after `cursor`, if nobody has. Returns up to where all is dealt with, in ms."""
        while True:
            last = await self._reach.call(self._state.open, self._stopping)
            start, end = max(cursor, last), now - LATE
            if start >= end:
                return start
            kept = end if self._catchup == "skip" else max(start, min(end, now - self._window))
            if self._catchup == "last" and (latest := self._latest(kept, end)) is not None:
                kept = latest - 1
            if await self._drop(last, start, kept):
                break
        if self._catchup == "all":
            await self._make_up_for_all(kept, end)
        elif self._catchup == "last" and kept < end:
            await self._make_up_for_last(kept, end)
        return end

    async def _drop(self, last: int, start: int, until: int) -> bool:
        """Give up what was missed up to `until`. False where somebody else has dealt with some of it meanwhile."""
        number = await self._count(start, until)
        if not number:
            return True
        if not await self._reach.call(lambda: self._state.give_up(last, until, number), self._stopping):
            return False
        what = "they are dropped"
        if self._catchup == "last" and number:
            what = "they are dropped for the last one's sake"
        elif self._catchup == "all":
            what = "they are older than the catch-up window, and dropped"
        first = self._schedule.next(start)
        counted = str(number) if number < _COUNTED else f"{number} or more"
        self._report.missed(f"{counted} instants", first, self._last(start, until) or first, what)
        return True

    async def _make_up_for_last(self, start: int, end: int) -> None:
        for instant in self._schedule.between(start, end):
            if await self._fire(_ms(instant)):
                self._report.missed("1 instant", instant, instant, "it is made up for")

    async def _make_up_for_all(self, start: int, end: int) -> None:
        """Oldest first: tasks are pushed at once, functions are queued, to run one after the other."""
        made_up = 0
        first = last = None
        instants = self._schedule.between(start, end)
        while batch := list(islice(instants, _BATCH)):
            number = await self._make_up_for(batch)
            if number:
                first, last = first or batch[0], batch[-1]
            made_up += number
            if self._stopping.is_set():
                break  # the rest stays missed, for somebody else or the next start
        if first is not None and last is not None:
            self._report.missed(f"{made_up} instants", first, last, "they are made up for")

    async def _make_up_for(self, batch: list[datetime]) -> int:
        if not self._pushes:
            return await self._reach.call(lambda: self._state.queue([*map(_ms, batch)]), self._stopping)
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

    def _latest(self, start: int, end: int) -> int | None:
        found = self._last(start, end)
        return None if found is None else _ms(found)

    def _last(self, start: int, end: int) -> datetime | None:
        """The last instant after `start` and up to `end`: looked for from the end."""
        span = LATE
        while True:
            last = None
            for last in self._between(max(start, end - span), end):  # noqa: B007 - the last one is what is wanted
                pass
            if last is not None or end - span <= start:
                return last
            span *= 4

    def _between(self, start: int, end: int) -> Iterator[datetime]:
        return self._schedule.between(start, end)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
