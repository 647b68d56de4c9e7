"""Settling: what finishes while the last write is under way is written together (group commit)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from redis_worker.engine.reconnect import Reconnect
from redis_worker.ports import Observer, Queue
from redis_worker.vocabulary.task import Delivery, Outcome

# One write takes so many outcomes at the most: it holds up everybody else on the server.
_MOST = 2000
# So many outcomes may wait to be written before claiming pauses.
_FULL = 10_000


class Settler:
    """Writes outcomes, in the order they came, until they are written."""

    def __init__(self, queue: Queue, reconnect: Reconnect, observer: Observer) -> None:
        self._queue = queue
        self._reconnect = reconnect
        self._observer = observer
        self._finished: list[Outcome] = []
        self._writing: list[Outcome] = []
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
        """How many outcomes are not written."""
        return len(self._finished) + len(self._writing)

    @property
    def idle(self) -> bool:
        """True when everything that finished is written."""
        return self._idle.is_set()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Have `outcomes` written."""
        self._finished.extend(outcomes)
        if not self._ready.is_set():
            self._idle.clear()
            self._ready.set()

    def held(self) -> list[Delivery]:
        """The tasks whose outcomes are not written."""
        return [outcome.delivery for outcome in (*self._writing, *self._finished)]

    async def flush(self) -> None:
        """Wait until everything is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write, until cancelled. Raises Refused."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._finished:
                self._writing, self._finished = self._finished[:_MOST], self._finished[_MOST:]
                await self._write(self._writing)
                self._writing = []
                self.settled.set()
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
