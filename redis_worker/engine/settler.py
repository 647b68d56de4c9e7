"""Settling: outcomes that finish during a write are written together (group commit)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.waiting import happens
from redis_worker.ports import Observer, Queue, Unwritten
from redis_worker.vocabulary.errors import DamagedKey, Unacceptable
from redis_worker.vocabulary.payload import failure
from redis_worker.vocabulary.task import Delivery, Outcome

# Maximum of outcomes per write: a write blocks all other clients of the server.
_MOST = 2000
# A write costs the worker and the server some 0.3 ms. After one with so many outcomes, more are on their way: the next
# write waits for those of so many seconds. Fewer are written at once, for somebody may wait for each.
_MANY, _GATHER = 8, 0.002
# Claiming pauses while so many outcomes wait to be written.
_FULL = 10_000
# Every queue accepts entries below this size, in bytes.
_ALWAYS_ACCEPTED = 1024 * 1024
# The interval of retries for outcomes that need a damaged key, in seconds: one first, the others after a success.
_RETRY_EVERY = 2.0


class Settler:
    """A writer of outcomes, in the order of arrival, with retries.

    Outcomes that need a damaged key stay in flight, and here, until the key is mended. An outcome that the queue
    refuses is separated from the others and replaced by an error.
    """

    def __init__(self, queue: Queue, reconnect: Reconnect, observer: Observer) -> None:
        self._queue = queue
        self._reconnect = reconnect
        self._observer = observer
        self._finished: list[Outcome] = []
        self._writing: list[Outcome] = []
        self._kept: dict[str, list[Outcome]] = {}
        """Outcomes that wait for a key to be mended, by the key."""
        self._retry_at = 0.0
        """The time of the next retry."""
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.settled = asyncio.Event()
        """Set after each write; the waiter clears it."""
        self.claim: Sequence[Delivery] = ()
        """A claim that is still to be reported: before its outcomes, and once they are on their way."""

    @property
    def full(self) -> bool:
        """True while too many outcomes wait to be written for more claims."""
        return len(self._finished) >= _FULL or (bool(self._kept) and self.waiting >= _FULL)

    @property
    def waiting(self) -> int:
        """The number of unwritten outcomes."""
        return len(self._finished) + len(self._writing) + sum(map(len, self._kept.values()))

    @property
    def writing(self) -> bool:
        """True while the reply to a write has not come."""
        return bool(self._writing)

    @property
    def idle(self) -> bool:
        """True if all outcomes are written, except those that need a damaged key."""
        return self._idle.is_set()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Add `outcomes` to write."""
        self._finished.extend(outcomes)
        if not self._ready.is_set():
            self._idle.clear()
            self._ready.set()

    def held(self) -> list[Delivery]:
        """Return the tasks with unwritten outcomes."""
        kept = (outcome for outcomes in self._kept.values() for outcome in outcomes)
        return [outcome.delivery for outcome in (*self._writing, *self._finished, *kept)]

    def report_claim(self) -> None:
        """Report the claim to the observer, unless that was done."""
        claim, self.claim = self.claim, ()
        if claim:
            self._observer.claimed(claim)

    async def flush(self) -> None:
        """Wait until all outcomes are written, except those that need a damaged key."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write outcomes until cancelled. Raises Refused."""
        while True:
            if self._kept:
                await happens(self._ready, _RETRY_EVERY)
                await self._retry_kept()
            else:
                await self._ready.wait()
            self._ready.clear()
            while self._finished:
                self._writing, self._finished = self._finished[:_MOST], self._finished[_MOST:]
                await self._write(self._writing)
                is_many = len(self._writing) > _MANY
                self._writing = []
                self.settled.set()
                if is_many and len(self._finished) < _MOST:
                    await asyncio.sleep(_GATHER)
            self._idle.set()
            self.settled.set()

    async def _write(self, batch: Sequence[Outcome]) -> None:
        refused = await self._reconnect.call(partial(self._settle, batch))
        if isinstance(refused, Unwritten):
            left = {id(outcome) for _, outcomes in refused.left for outcome in outcomes}
            self._notify([outcome for outcome in batch if id(outcome) not in left], refused.refused)
            for error, outcomes in refused.left:
                await self._handle_unwritten(error, outcomes)
        else:
            self._notify(batch, refused)

    async def _settle(self, batch: Sequence[Outcome]) -> Sequence[Outcome] | Unwritten:
        try:
            return await self._queue.settle(batch)
        except Unwritten as unwritten:  # an answer, so the queue is reachable
            return unwritten

    async def _handle_unwritten(self, error: DamagedKey | Unacceptable, outcomes: Sequence[Outcome]) -> None:
        """Keep outcomes that need a damaged key; write others in halves, until the refused one is alone."""
        if isinstance(error, DamagedKey):
            self._keep(error.key, outcomes)
        elif len(outcomes) > 1:
            half = len(outcomes) // 2
            await self._write(outcomes[:half])
            await self._write(outcomes[half:])
        elif (replacement := _reduced(outcomes[0], error)) is not None:
            await self._write([replacement])
        elif len(outcomes[0].delivery.raw) < _ALWAYS_ACCEPTED:
            raise error  # its content is not the reason
        else:  # the server accepted the task once, and refuses what an outcome repeats of it: a huge id
            self._keep("", outcomes)

    def _keep(self, key: str, outcomes: Sequence[Outcome]) -> None:
        if not self._kept:
            self._retry_at = time.monotonic() + _RETRY_EVERY
        self._kept.setdefault(key, []).extend(outcomes)

    async def _retry_kept(self) -> None:
        """Retry one outcome for each damaged key, at intervals; a success releases the others."""
        if time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + _RETRY_EVERY
        for key in list(self._kept):
            self._writing = self._kept.pop(key)
            first, *rest = self._writing
            await self._write([first])
            if key in self._kept:
                self._keep(key, rest)
            else:
                self._idle.clear()
                self._finished = [*rest, *self._finished]
            self._writing = []

    def _notify(self, batch: Sequence[Outcome], refused: Sequence[Outcome]) -> None:
        self.report_claim()
        if refused:
            self._observer.refused(refused)
            unwritten = {id(outcome) for outcome in refused}
            batch = [outcome for outcome in batch if id(outcome) not in unwritten]
        if batch:
            self._observer.settled(batch)


_UNWRITABLE = "Processing error: cannot be written: "


def _reduced(outcome: Outcome, error: Unacceptable) -> Outcome | None:
    """Return an error in place of an outcome that the queue refuses; None if that would not help."""
    message = outcome.error or ""
    if outcome.result is None or message.startswith(_UNWRITABLE):
        return None
    text = f"{_UNWRITABLE}the {'error' if message else 'result'} has {len(outcome.result)} bytes ({error})"
    return replace(outcome, result=failure(text), error=text)
