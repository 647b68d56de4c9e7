"""Settling: what finishes while the last write is under way is written together (group commit)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.waiting import happens
from redis_worker.ports import Observer, Queue, Unwritten
from redis_worker.vocabulary.errors import DamagedKey, Unacceptable
from redis_worker.vocabulary.payload import failure
from redis_worker.vocabulary.task import Delivery, Outcome

# One write takes so many outcomes at the most: it holds up everybody else on the server.
_MOST = 2000
# So many outcomes may wait to be written before claiming pauses.
_FULL = 10_000
# Less than this, in bytes, every queue takes.
_TAKEN = 1024 * 1024
# How often an outcome that needs a damaged key is tried again, in seconds: one, and if it is written, the others.
_MENDING_EVERY = 2.0


class Settler:
    """Writes outcomes, in the order they came, until they are written.

    Those that need a damaged key stay in flight, and here, until the key is mended. An outcome that the queue does not
    take is set apart from the others, and an error takes its place.
    """

    def __init__(self, queue: Queue, reconnect: Reconnect, observer: Observer) -> None:
        self._queue = queue
        self._reconnect = reconnect
        self._observer = observer
        self._finished: list[Outcome] = []
        self._writing: list[Outcome] = []
        self._kept: dict[str, list[Outcome]] = {}
        """Outcomes that wait for a key to be mended, by the key."""
        self._mended_at = 0.0
        """When to look whether one is."""
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.settled = asyncio.Event()
        """Set after each write; whoever waits for it clears it."""

    @property
    def full(self) -> bool:
        """True while so much waits to be written that nothing more should be claimed."""
        return len(self._finished) >= _FULL or (bool(self._kept) and self.waiting >= _FULL)

    @property
    def waiting(self) -> int:
        """How many outcomes are not written."""
        return len(self._finished) + len(self._writing) + sum(map(len, self._kept.values()))

    @property
    def idle(self) -> bool:
        """True when everything that finished is written, but for what waits for a key to be mended."""
        return self._idle.is_set()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Have `outcomes` written."""
        self._finished.extend(outcomes)
        if not self._ready.is_set():
            self._idle.clear()
            self._ready.set()

    def held(self) -> list[Delivery]:
        """The tasks whose outcomes are not written."""
        kept = (outcome for outcomes in self._kept.values() for outcome in outcomes)
        return [outcome.delivery for outcome in (*self._writing, *self._finished, *kept)]

    async def flush(self) -> None:
        """Wait until everything is written, but for what waits for a key to be mended."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write, until cancelled. Raises Refused."""
        while True:
            if self._kept:
                await happens(self._ready, _MENDING_EVERY)
                await self._write_mended()
            else:
                await self._ready.wait()
            self._ready.clear()
            while self._finished:
                self._writing, self._finished = self._finished[:_MOST], self._finished[_MOST:]
                await self._write(self._writing)
                self._writing = []
                self.settled.set()
            self._idle.set()
            self.settled.set()

    async def _write(self, batch: Sequence[Outcome]) -> None:
        refused = await self._reconnect.call(lambda: self._settle(batch))
        if isinstance(refused, Unwritten):
            left = {id(outcome) for _, outcomes in refused.left for outcome in outcomes}
            self._tell([outcome for outcome in batch if id(outcome) not in left], refused.refused)
            for error, outcomes in refused.left:
                await self._write_otherwise(error, outcomes)
        else:
            self._tell(batch, refused)

    async def _settle(self, batch: Sequence[Outcome]) -> Sequence[Outcome] | Unwritten:
        try:
            return await self._queue.settle(batch)
        except Unwritten as unwritten:  # an answer, which says that the queue is there
            return unwritten

    async def _write_otherwise(self, error: DamagedKey | Unacceptable, outcomes: Sequence[Outcome]) -> None:
        """Write later what waits for a damaged key; anything else in halves, until what is guilty is alone."""
        if isinstance(error, DamagedKey):
            self._keep(error.key, outcomes)
        elif len(outcomes) > 1:
            half = len(outcomes) // 2
            await self._write(outcomes[:half])
            await self._write(outcomes[half:])
        elif (less := _reduced(outcomes[0], error)) is not None:
            await self._write([less])
        elif len(outcomes[0].delivery.raw) < _TAKEN:
            raise error  # not for what is in it
        else:  # the server took the task and does not take it any more, which an acknowledgement needs
            self._keep("", outcomes)

    def _keep(self, key: str, outcomes: Sequence[Outcome]) -> None:
        if not self._kept:
            self._mended_at = time.monotonic() + _MENDING_EVERY
        self._kept.setdefault(key, []).extend(outcomes)

    async def _write_mended(self) -> None:
        """Now and then, try one outcome for each damaged key: when it can be written, the others can."""
        if time.monotonic() < self._mended_at:
            return
        self._mended_at = time.monotonic() + _MENDING_EVERY
        for key in list(self._kept):
            self._writing = self._kept.pop(key)
            first, *others = self._writing
            await self._write([first])
            if key in self._kept:
                self._keep(key, others)
            else:
                self._idle.clear()
                self._finished = [*others, *self._finished]
            self._writing = []

    def _tell(self, batch: Sequence[Outcome], refused: Sequence[Outcome]) -> None:
        if refused:
            self._observer.refused(refused)
            gone = {id(outcome) for outcome in refused}
            batch = [outcome for outcome in batch if id(outcome) not in gone]
        if batch:
            self._observer.settled(batch)


_UNWRITABLE = "Processing error: cannot be written: "


def _reduced(outcome: Outcome, error: Unacceptable) -> Outcome | None:
    """Return what takes the place of an outcome that the queue does not take; None where it would not help."""
    said = outcome.error or ""
    if outcome.result is None or said.startswith(_UNWRITABLE):
        return None
    text = f"{_UNWRITABLE}the {'error' if said else 'result'} has {len(outcome.result)} bytes ({error})"
    return replace(outcome, result=failure(text), error=text)
