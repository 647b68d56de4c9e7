"""Claiming: as much as there is room for, and no more while the queue is away."""

from __future__ import annotations

import asyncio
import time

from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.runner import Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.waiting import happens
from redis_worker.ports import Observer, Queue
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.task import Delivery

# Tasks claimed ahead that found no slot for so long are handed back, for another worker to take, in seconds.
_STALLED = 0.25
# So many turns of the loop the others get before the next claim is sent: a task that came alone is then
# done, and its result on its way.
_TURNS = 3
# How often what is in flight is compared with what the worker holds, in seconds; and after each lost connection.
_COMPARE_EVERY = 30.0


class Claimer:
    """Claims until it is told to stop or, with `burst`, until there is nothing left to do."""

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
        self._left = max_tasks
        self._stopping = False
        self._returning: list[Delivery] = []
        self._compare_at = time.monotonic() + _COMPARE_EVERY

    def stop(self) -> None:
        """Claim no more. What is being claimed just now still arrives."""
        self._stopping = True
        self._runner.progress.set()

    async def run(self) -> None:
        """Claim. Raises Refused."""
        while not self._stopping and self._left != 0:
            if self._runner.stalled(_STALLED) and not self._reconnect.away:
                await self.hand_back()
            room = self._room()
            if room == 0:
                await self._wait_for_room()
                continue
            deliveries = await self._reconnect.call(lambda limit=room: self._claim(limit))  # type: ignore[misc]
            if deliveries:
                self._arrived(deliveries)
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
            elif self._burst and await self._all_done():
                return

    def _room(self) -> int:
        if self._settler.full or self._reconnect.away:
            return 0
        room = self._runner.room()
        return room if self._left is None else min(room, self._left)

    async def _claim(self, limit: int) -> list[Delivery]:
        if self._stopping:
            return []  # told to stop while the queue was away
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
        return [*self._runner.held(), *self._settler.held(), *self._returning]

    def _arrived(self, deliveries: list[Delivery]) -> None:
        if self._left is not None:
            self._left -= len(deliveries)
        self._runner.add(deliveries)
        self._observer.claimed(deliveries)

    async def _wait_for_room(self) -> None:
        self._runner.progress.clear()
        await happens(self._runner.progress, _STALLED)  # then look whether what was claimed ahead has found a slot

    async def hand_back(self) -> None:
        """Hand what is claimed and not started back to the queue, in order, uncharged."""
        taken = self._runner.take_back()
        if not taken:
            return
        if self._left is not None:
            self._left += len(taken)
        self._returning = taken
        await self._reconnect.call(lambda: self._queue.release(taken))
        self._returning = []
        self._observer.released(taken)

    async def _all_done(self) -> bool:
        """Whether nothing runs and nothing is left to write; waits for a step forward if not."""
        if self._runner.idle and self._settler.idle:
            return True
        self._settler.settled.clear()
        await happens(self._settler.settled, _STALLED)
        return False
