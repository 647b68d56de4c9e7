"""The rebalances of a group: partitions come and go in the thread that polls; their owner is on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from redis_worker.kafka.errors import error_of, translated
from redis_worker.kafka.marks import Mark, read_mark
from redis_worker.kafka.partitions import OwnedPartition
from redis_worker.ports import Partition
from redis_worker.vocabulary.errors import Disconnected, RedisWorkerError
from redis_worker.vocabulary.logger import library_logger

logger = library_logger(__name__)

T = TypeVar("T")

# The time limit of a request for the committed offsets, in seconds.
_REQUEST = 10.0
# Tries of the last commit while other members join, and the pause between them, in seconds.
_TRIES, _PAUSE = 10, 0.1


class Owner(Protocol):
    """The receiver of what a membership brings; all methods run on the event loop."""

    @property
    def is_busy(self) -> bool:
        """True while messages are in flight: a commit may come soon."""

    def arrived(self, fetched: Sequence[tuple[OwnedPartition, list[Any]]]) -> None:
        """Take messages that are fetched."""

    async def assigned(self, partitions: Sequence[OwnedPartition]) -> Mapping[Partition, int]:
        """Take partitions; return the offsets to begin with where they are not the committed ones."""

    async def revoked(self, partitions: Sequence[OwnedPartition]) -> Sequence[TopicPartition]:
        """Give partitions up; return the offsets to commit for them."""

    def lost(self, partitions: Sequence[OwnedPartition]) -> None:
        """Give up partitions that others may own already."""


class Rebalances:
    """The callbacks of a subscription; they run in the thread that polls or closes, and hold it up."""

    def __init__(
        self, owner: Owner, new: Callable[[Partition, Mark, int | None], OwnedPartition], *, cooperative: bool
    ) -> None:
        """`new` makes a partition of its name, mark and committed offset.

        `cooperative`: a rebalance takes and gives single partitions; without it, all of them.
        """
        self._owner = owner
        self._cooperative = cooperative
        self._new = new
        self.owned: dict[Partition, OwnedPartition] = {}
        """The partitions of this member, for the thread."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the owner, once the member has joined."""
        self.closing = False
        self.error: RedisWorkerError | None = None
        """The error that ends the membership."""

    def assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Begin with partitions at their committed offsets, or at those that the owner knows."""
        committed = self._committed(consumer, partitions)
        new = []
        for partition in partitions:
            name = partition.topic, partition.partition
            offset, mark = committed.get(name, (None, Mark()))
            new.append(self._new(name, mark, offset))
        begin = self._wait_for(self._owner.assigned(new)) or {}
        self.owned |= {partition.name: partition for partition in new}
        for partition in partitions:
            if (stored := begin.get((partition.topic, partition.partition))) is not None:
                partition.offset = stored
        if self._cooperative:
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)
        consumer.resume(partitions)  # from a pause during an earlier assignment

    def _committed(self, consumer: Any, partitions: list[TopicPartition]) -> dict[Partition, tuple[int, Mark]]:
        """Return the committed offsets, with their marks for the new owner, of partitions that have them."""
        while not self.closing:
            try:
                found = consumer.committed(partitions, timeout=_REQUEST)
            except KafkaException as error:
                if not isinstance(translated(error_of(error)), Disconnected):
                    raise
                continue
            return {
                (each.topic, each.partition): (each.offset, read_mark(each.metadata).inherited(each.offset))
                for each in found
                if each.error is None and each.offset >= 0
            }
        return {}

    def revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Give partitions up, once their owner has settled what it can."""
        offsets = self._wait_for(self._owner.revoked(self._leaving(partitions)))
        if offsets:
            _commit(consumer, list(offsets))
        self._unassign(consumer, partitions)

    def lose(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Give up partitions that others may own already."""
        self._tell(self._owner.lost, self._leaving(partitions))
        self._unassign(consumer, partitions)

    def _unassign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        if self._cooperative:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def _leaving(self, partitions: Iterable[TopicPartition]) -> list[OwnedPartition]:
        found = (self.owned.pop((partition.topic, partition.partition), None) for partition in partitions)
        return [partition for partition in found if partition is not None]

    # From the thread to the event loop.

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:
        assert self.loop is not None
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody waits for it

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return the result of `work` on the event loop; None if it failed, which ends the membership."""
        assert self.loop is not None
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop is closed
            work.close()
            return None
        while True:
            try:
                return future.result(1.0)
            except TimeoutError:
                if self.loop.is_closed() or future.done():
                    return None
            except CancelledError:
                return None
            except RedisWorkerError as error:
                self.error = self.error or error
                return None


def _commit(consumer: Any, offsets: list[TopicPartition]) -> None:
    """Commit the offsets of partitions that go. The broker refuses it for the moment in which others join."""
    for tries in range(1, _TRIES + 1):
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error_of(error).code() != KafkaError.REBALANCE_IN_PROGRESS or tries == _TRIES:
                logger.warning("the offsets of revoked partitions are not committed: %s", error_of(error).str())
                return
            time.sleep(_PAUSE)
        else:
            return
