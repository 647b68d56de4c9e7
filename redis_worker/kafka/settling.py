"""Settling of messages: their values are written to the sink, then their offsets committed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from redis_worker.engine.reconnect import Reconnect
from redis_worker.kafka.commits import Commits
from redis_worker.kafka.marks import ALONE
from redis_worker.kafka.partitions import KafkaDelivery, OwnedPartition
from redis_worker.kafka.writer import Entry, Writer
from redis_worker.ports import Observer, Partition, Sink
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.task import Outcome

logger = library_logger(__name__)

# The longest pause between tries to reach the sink, in seconds.
LONGEST_PAUSE = 10.0
# The time for writing the last values, in seconds.
LAST_WRITE = 10.0


class Settling:
    """The messages whose handling has ended, up to the commit of their offsets.

    A sink that stores offsets gets the values of each partition in the order of offsets.
    """

    def __init__(
        self,
        sink: Sink | None,
        observer: Observer,
        commits: Commits,
        *,
        bury: Callable[[Sequence[Outcome]], Awaitable[None]],
        taken_over: Callable[[Collection[Partition]], None],
        advanced: Callable[[], None],
    ) -> None:
        """`bury` writes dead letters; `taken_over` gets partitions with another owner by the sink's record."""
        self.stores_offsets = sink is not None and sink.stores_offsets
        self._commits = commits
        self._advanced = advanced
        self._moved: set[OwnedPartition] = set()
        """Partitions with an offset to commit that has moved."""
        self._writer: Writer | None = None
        if sink is not None:
            reconnect = Reconnect(observer, longest=LONGEST_PAUSE)
            self._writer = Writer(
                sink, observer, bury=bury, finished=self._written, lost=taken_over, reconnect=reconnect
            )

    @property
    def away(self) -> bool:
        """True while the sink cannot be reached."""
        return self._writer is not None and self._writer.away

    @property
    def room(self) -> int | None:
        """The number of values that may still be handed over; None without a bound."""
        return None if self._writer is None else self._writer.room

    def roles(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return what runs until it is cancelled."""
        return [] if self._writer is None else [self._writer.run]

    def settle(self, settled: Sequence[KafkaDelivery], entries: list[Entry]) -> None:
        """Mark messages without a value as settled, and have the values of the others written."""
        self._mark(settled)
        self._write(entries)
        self._advance()

    def _write(self, entries: list[Entry]) -> None:
        """Hand values to the writer, in the order of offsets if the sink stores those. The hot path."""
        if self.stores_offsets:
            reached: list[Entry] = []
            for entry in entries:
                found = entry.delivery.receipt.offsets.settle(entry.delivery.offset, entry)
                reached += [entry for _, entry in found]
            entries = reached
        for entry in entries:
            entry.delivery.receipt.writing += 1
        if self._writer is not None:
            self._writer.add(entries)

    def _written(self, entries: Sequence[Entry]) -> None:
        for delivery, _ in entries:
            delivery.receipt.writing -= 1
        if self.stores_offsets:
            for delivery, _ in entries:
                partition = delivery.receipt
                if not partition.lost:
                    partition.safe = delivery.offset + 1
                    self._moved.add(partition)
        else:
            self._mark([delivery for delivery, _ in entries])
        self._advance()

    def _mark(self, deliveries: Sequence[KafkaDelivery]) -> None:
        """Move the offsets of partitions past what is settled. The hot path."""
        offsets: dict[OwnedPartition, list[int]] = {}
        for delivery in deliveries:
            offsets.setdefault(delivery.receipt, []).append(delivery.offset)
        for partition, settled in offsets.items():
            if not partition.lost and partition.offsets.settle_all(settled):
                partition.safe = partition.offsets.next
                self._moved.add(partition)

    def _advance(self) -> None:
        """Have the offsets committed that moved."""
        for partition in self._moved:
            if partition.mark.level == ALONE:
                partition.wants_open = False  # nothing of it is held now
            self._commits.want(partition, urgent=partition.mark.level > 0)
        self._moved.clear()
        self._advanced()

    def hurry(self, on: bool) -> None:
        """Write values at once, or in batches again."""
        if self._writer is not None:
            self._writer.hurry(on)

    def forget_owners(self) -> None:
        """Drop the values of partitions that were given up, before the next write."""
        if self._writer is not None:
            self._writer.stale = True

    async def write_last(self) -> None:
        """Write what is handled, if the sink is there."""
        if self._writer is None:
            return
        try:
            async with asyncio.timeout(LAST_WRITE):
                await self._writer.flush()
        except (Disconnected, Refused, TimeoutError) as error:
            logger.warning("what is handled and not written is handled again: %s", error or "the sink takes too long")

    def cancel(self) -> None:
        """Abandon a write under way."""
        if self._writer is not None:
            self._writer.cancel()
