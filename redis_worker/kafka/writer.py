"""The writer: values go to a sink in batches, and their messages are finished once they are written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.waiting import happens
from redis_worker.kafka.partitions import KafkaDelivery
from redis_worker.ports import Observer, Partition, PartitionsLost, Refusals, Sink
from redis_worker.vocabulary.task import Outcome

# Claims pause while more than this waits to be written: batches, and messages.
_MOST_BATCHES = 4
_MOST = 10_000


class Entry(NamedTuple):
    """A handled message, and the value to write for it."""

    delivery: KafkaDelivery
    value: Any
    """None if there is nothing to write, but an offset to store."""


class Writer:
    """A role that writes to a sink: a batch when there are enough values, or the first has waited long enough."""

    def __init__(
        self,
        sink: Sink,
        observer: Observer,
        *,
        bury: Callable[[Sequence[Outcome]], Awaitable[None]],
        finished: Callable[[Sequence[Entry]], None],
        lost: Callable[[Collection[Partition]], None],
        reconnect: Reconnect,
    ) -> None:
        """`bury` writes dead letters of values that the sink refuses; `finished` is called with what is written.

        `lost` is called with partitions that a successor owns, by the sink's record.
        """
        self._sink = sink
        self._observer = observer
        self._bury = bury
        self._finished = finished
        self._lost = lost
        self._reconnect = reconnect
        self._entries: list[Entry] = []
        self._values = 0
        """Entries with a value."""
        self._unsure: list[Entry] = []
        """A batch whose write had no answer. It is repeated as it was, for a sink that may have stored its offsets."""
        self._writing: asyncio.Task[None] | None = None
        self._since = 0.0
        self._arrived = asyncio.Event()
        self._ready = asyncio.Event()
        self._hurry = False
        self.stale = False
        """True after a partition was lost: its entries are dropped before the next write."""

    @property
    def away(self) -> bool:
        """True while the sink is unreachable."""
        return self._reconnect.away

    @property
    def room(self) -> int:
        """The number of messages that may still be claimed: no more than so many wait to be written."""
        return max(0, max(_MOST, _MOST_BATCHES * self._sink.batch_size) - len(self._entries))

    def hurry(self, hurry: bool) -> None:
        """Write at once from now on, without waiting for more; or no longer."""
        self._hurry = hurry
        if hurry and self._entries:
            self._ready.set()

    def add(self, entries: Sequence[Entry]) -> None:
        """Write `entries` soon. The hot path."""
        if not entries:
            return
        if not self._entries:
            self._since = perf_counter()
            self._arrived.set()
        self._entries.extend(entries)
        self._values += sum(entry.value is not None for entry in entries)
        if self._hurry or self._values >= self._sink.batch_size:
            self._ready.set()

    async def run(self) -> None:
        """Write until cancelled; a write under way goes on. Raises Refused."""
        while True:
            await self._arrived.wait()
            left = self._since + self._sink.flush_after - perf_counter()
            if left > 0:
                await happens(self._ready, left)
            self._writing = asyncio.ensure_future(self._reconnect.call(self._write))
            await asyncio.shield(self._writing)

    async def flush(self) -> None:
        """Write all there is, without retries, after `run` was cancelled. Raises Disconnected or Refused."""
        if self._writing is not None and not self._writing.done():
            if self.away:
                self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        while self._entries:
            await self._write()

    def cancel(self) -> None:
        """Give up a write under way."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write(self) -> None:
        """Write a batch of what is still owned. Raises Disconnected or Refused: call it again then."""
        batch = self._batch()
        valued = [entry for entry in batch if entry.value is not None]
        if valued or (batch and self._sink.stores_offsets):
            started = perf_counter()
            try:
                refused = await self._sink.write(
                    [entry.value for entry in valued],
                    offsets=_offsets(batch) if self._sink.stores_offsets else None,
                    refused=lambda refused: self._bury(_letters(valued, refused)),
                )
            except PartitionsLost as error:
                self._lost(error.partitions)
                return
            except BaseException:
                self._unsure = batch
                raise
            self._unsure = []
            self._observer.written(len(valued) - len(refused), len(refused), perf_counter() - started)
        del self._entries[: len(batch)]
        self._values -= len(valued)
        self._since = perf_counter()
        if not self._entries:
            self._arrived.clear()
        if self._values < self._sink.batch_size and not (self._hurry and self._entries):
            self._ready.clear()
        self._finished(batch)

    def _batch(self) -> list[Entry]:
        """Return the first entries, with as many values as the sink takes; drop those of lost partitions before."""
        if self.stale:
            self.stale = False
            self._entries = [entry for entry in self._entries if not entry.delivery.receipt.lost]
            self._values = sum(entry.value is not None for entry in self._entries)
            self._unsure = [entry for entry in self._unsure if not entry.delivery.receipt.lost]
        if self._unsure:
            return self._unsure
        room = self._sink.batch_size
        if self._values == len(self._entries):
            return self._entries[:room]
        batch: list[Entry] = []
        for entry in self._entries:
            if entry.value is not None:
                if not room:
                    break
                room -= 1
            batch.append(entry)
        return batch


def _offsets(batch: Sequence[Entry]) -> dict[Partition, int]:
    """Return the offsets to read next, once `batch` is written."""
    return {entry.delivery.receipt.name: entry.delivery.offset + 1 for entry in batch}


def _letters(valued: Sequence[Entry], refused: Refusals) -> list[Outcome]:
    return [
        Outcome(delivery, delivery.coordinates, None, f"the sink refuses the row: {reason}", dead=True)
        for index, reason in refused.items()
        for delivery in (valued[index].delivery,)
    ]
