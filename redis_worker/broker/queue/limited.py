"""Queues with limits on the starts of their tasks, which a gate holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.gate import Gate
from redis_worker.engine.waiting import happens
from redis_worker.ports import Unwritten
from redis_worker.vocabulary.task import Delivery, Outcome

# The longest time in seconds for which a claim waits for a rate, and the shortest: for claimed tasks to start.
_LONGEST, _SHORTEST = 1.0, 0.01


class LimitedQueue:
    """The port `Queue`: a queue whose gate learns which tasks have ended."""

    def __init__(self, queue: AtLeastOnceQueue, gate: Gate) -> None:
        self._gate = gate
        self._queue = queue
        self.open, self.missing = queue.open, queue.missing

    @property
    def cut_short(self) -> bool:
        """See the port."""
        return self._queue.cut_short

    @property
    def worker(self) -> str:
        """See the port."""
        return self._queue.worker

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """See the port."""
        return await self._queue.claim(limit, wait)

    def ring(self) -> None:
        """End a claim that waits."""
        self._queue.ring()

    async def close(self) -> None:
        """See the port."""
        await self._queue.close()
        await self._gate.close()

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See the port."""
        try:
            lost = await self._queue.settle(outcomes)
        except Unwritten as error:
            left = {id(outcome) for _, some in error.left for outcome in some}
            self._gate.ended(outcome.delivery for outcome in outcomes if id(outcome) not in left)
            raise
        self._gate.ended(outcome.delivery for outcome in outcomes)
        return lost

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        await self._queue.release(deliveries)
        self._gate.ended(deliveries)


class RatedQueue(LimitedQueue):
    """A queue under a rate: it claims no more than may start now."""

    def __init__(self, queue: AtLeastOnceQueue, gate: Gate) -> None:
        super().__init__(queue, gate)
        self._rung = asyncio.Event()
        self._uncounted: set[Delivery] = set()
        """Claimed tasks that the rate does not count yet: a claim may come before they start."""
        gate.on_answer = self._uncounted.discard

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """See the port."""
        while True:
            room, seconds, waiting = await self._gate.room()
            self._uncounted -= {delivery for delivery in self._uncounted if delivery.receipt.lost}
            room -= len(self._uncounted)
            if room > 0:
                claimed = await super().claim(min(limit, room), wait)
                self._uncounted.update(claimed)
                return claimed
            pause = min(max(seconds, _SHORTEST), _LONGEST)
            is_over = not (wait or waiting) or await happens(self._rung, pause)
            if wait or is_over:
                return []

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See the port."""
        self._uncounted.difference_update(outcome.delivery for outcome in outcomes)
        return await super().settle(outcomes)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        self._uncounted.difference_update(deliveries)
        await super().release(deliveries)

    def ring(self) -> None:
        """See LimitedQueue. Nothing is claimed any more."""
        self._rung.set()
        super().ring()


def limited_queue(queue: AtLeastOnceQueue, gate: Gate) -> LimitedQueue:
    """Return the queue behind a gate."""
    return LimitedQueue(queue, gate) if gate.rate is None else RatedQueue(queue, gate)
