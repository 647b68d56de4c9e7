"""Claiming: up to the free room, and nothing while the queue is away."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.runner import MANY, PATIENCE, Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.waiting import happens, set_again
from redis_worker.ports import Observer, Queue
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.task import Delivery

# The intervals of looks, in seconds: at tasks that wait for a slot, and at a queue that was full or away.
_LOOK_EVERY, _ROOM_EVERY = PATIENCE / 4, 0.25
# Maximum of tasks per claim: it blocks all other clients of the server, and the worker starts the first tasks after it.
_MOST = 2000
# Turns of the event loop within which the result of a lone task that does not wait is being written: one each of the
# runner, a coroutine and the settler.
_TURNS = 3
# The longest wait, in seconds, for the reply to that write. The server, and the program that waits for the result, wake
# meanwhile: they get a processor at once if this one sleeps. A server nearby has answered by then.
_REPLY = 0.001
# The interval, in seconds, of comparing the tasks in flight with the tasks held; also after each lost connection.
_COMPARE_EVERY = 30.0


class Claimer:
    """A loop that claims until it is stopped or, with `burst`, until all tasks are done."""

    def __init__(
        self,
        queue: Queue,
        runner: Runner,
        settler: Settler,
        reconnect: Reconnect,
        observer: Observer,
        *,
        burst: bool,
        max_tasks: int | None,
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._settler = settler
        self._reconnect = reconnect
        self._observer = observer
        self._burst = burst
        self._remaining = max_tasks
        self._stopping = False
        self._exchange = asyncio.Lock()
        """Held by claims and releases: of two at once, the later tasks could come back before the earlier ones."""
        self._may_wait = True
        """True if the claim under way may wait for tasks: nothing is behind it. It takes no more than start at once.

        Meanwhile slow tasks may have taken the slots of those that follow.
        """
        self._releasing: list[Delivery] = []
        """Tasks in flight until their release is answered."""
        self._compare_at = time.monotonic() + _COMPARE_EVERY

    def stop(self) -> None:
        """Stop claiming. A claim under way still arrives."""
        self._stopping = True
        self._runner.progress.set()

    async def run(self) -> None:
        """Claim until stopped. Raises Refused."""
        while not self._stopping and self._remaining != 0:
            room = self._room()
            if room == 0:
                await set_again(self._runner.progress, _ROOM_EVERY)
                continue
            deliveries: list[Delivery] = []  # not the last ones: the claim may wait for long
            async with self._exchange:
                deliveries = await self._reconnect.call(partial(self._claim, room))
                self._may_wait = len(deliveries) < room and not self._queue.cut_short
                if deliveries:
                    await self._arrived(deliveries)
            if not deliveries and self._burst and await self._all_done():
                return

    def _room(self) -> int:
        if self._settler.full or self._reconnect.away:
            return 0
        room = min(_MOST, self._runner.room(ahead=not self._may_wait))
        return room if self._remaining is None else min(room, self._remaining)

    async def _claim(self, limit: int) -> list[Delivery]:
        if self._stopping:
            return []  # stopped while the queue was away
        try:
            if time.monotonic() >= self._compare_at:
                missing = await self._queue.missing(self._held())
                self._compare_at = time.monotonic() + _COMPARE_EVERY
                if missing:
                    return missing
            return await self._queue.claim(limit, wait=not self._burst)
        except Disconnected:
            self._compare_at = 0.0  # the reply may be lost
            raise

    def _held(self) -> list[Delivery]:
        return [*self._runner.held(), *self._settler.held(), *self._releasing]

    async def _arrived(self, deliveries: list[Delivery]) -> None:
        """Start `deliveries`; if these are all and end at once, leave everything else until they are settled."""
        if self._remaining is not None:
            self._remaining -= len(deliveries)
        self._settler.claim = deliveries
        self._runner.add(deliveries)
        try:
            for _ in range(_TURNS if len(deliveries) < MANY else 0):
                await asyncio.sleep(0)
                if self._settler.writing and self._runner.idle:
                    await set_again(self._settler.settled, _REPLY)
                    break
        finally:
            if self._runner.pending:
                self._runner.behind.set()
            self._settler.report_claim()

    async def return_stalled(self) -> None:
        """Release tasks claimed ahead when slow tasks keep them from their start, until cancelled. Raises Refused."""
        while True:
            await self._runner.behind.wait()
            self._runner.behind.clear()
            while self._runner.pending:
                await asyncio.sleep(_LOOK_EVERY)
                if self._reconnect.away or self._stopping or self._remaining == 0:
                    continue  # nothing would claim them again, or could release them
                if self._may_wait:
                    await self._release_late()
                else:
                    async with self._exchange:
                        await self._release_late()

    async def _release_late(self) -> None:
        if late := self._runner.late():
            await self.hand_back(late)

    async def hand_back(self, count: int | None = None) -> None:
        """Release the tasks that have not started, all or the last `count`, to the queue, in order, uncharged."""
        unstarted = self._runner.take_back(count)
        if not unstarted:
            return
        if self._remaining is not None:
            self._remaining += len(unstarted)
        self._releasing = unstarted
        await self._reconnect.call(lambda: self._queue.release(unstarted))
        self._releasing = []
        self._observer.released(unstarted)
        if not self._runner.shares_slots:  # or it would take the tasks again before others do
            self._runner.progress.set()

    async def _all_done(self) -> bool:
        """Return True if nothing runs and nothing waits to be written; otherwise wait for progress first."""
        if self._runner.idle and self._settler.idle:
            return True
        self._settler.settled.clear()
        await happens(self._settler.settled, _ROOM_EVERY)
        return False
