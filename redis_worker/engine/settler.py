"""Settling: what finishes while the last write is under way is written together (group commit)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from redis_worker.engine.reconnect import Reconnect
from redis_worker.ports import Observer, Queue
from redis_worker.vocabulary.task import Outcome

# One write takes so many outcomes and bytes at the most: it holds up everybody else on the server,
# and a server cuts off a client that sends a gigabyte at once.
_MOST = 1000
_MOST_BYTES = 16 * 1024 * 1024
# So many outcomes may wait to be written before claiming pauses.
_FULL = 10_000


class Settler:
    """Writes outcomes, in the order they came, until they are written."""

    def __init__(self, queue: Queue, reconnect: Reconnect, observer: Observer) -> None:
        self._queue = queue
        self._reconnect = reconnect
        self._observer = observer
        self._finished: deque[Outcome] = deque()
        self._writing = False
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.settled = asyncio.Event()
        """Set after each write; whoever waits for it clears it."""

    @property
    def full(self) -> bool:
        """True while so much waits to be written that nothing more should be claimed."""
        return len(self._finished) >= _FULL

    @property
    def waiting(self) -> int:
        """Outcomes not yet taken up by a write."""
        return len(self._finished)

    @property
    def idle(self) -> bool:
        """True when everything that finished is written."""
        return self._idle.is_set()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Have `outcomes` written."""
        self._finished.extend(outcomes)
        self._idle.clear()
        self._ready.set()

    async def flush(self) -> None:
        """Wait until everything is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write, until cancelled. Raises Refused."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._finished:
                await self._write(self._batch())
            self._idle.set()
            self.settled.set()

    async def _write(self, batch: list[Outcome]) -> None:
        refused = await self._reconnect.call(lambda: self._queue.settle(batch))
        if refused:
            self._observer.refused(refused)
            gone = {id(outcome) for outcome in refused}
            batch = [outcome for outcome in batch if id(outcome) not in gone]
        if batch:
            self._observer.settled(batch)
        self.settled.set()

    def _batch(self) -> list[Outcome]:
        batch: list[Outcome] = []
        size = 0
        while self._finished and len(batch) < _MOST and size < _MOST_BYTES:
            outcome = self._finished.popleft()
            size += len(outcome.delivery.raw) + len(outcome.result or b"")
            batch.append(outcome)
        return batch
