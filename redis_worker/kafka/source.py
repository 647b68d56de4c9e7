"""The source: a Queue on the partitions that a consumer group gives this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import TopicPartition

from redis_worker.engine.reconnect import GivenUp, Reconnect
from redis_worker.engine.waiting import happens
from redis_worker.kafka.buffers import Buffers
from redis_worker.kafka.commits import Commits
from redis_worker.kafka.dead_letters import DeadLetters
from redis_worker.kafka.group import Group
from redis_worker.kafka.marks import Mark
from redis_worker.kafka.order import LANES
from redis_worker.kafka.partitions import KafkaDelivery, OwnedPartition
from redis_worker.kafka.settings import KafkaSettings
from redis_worker.kafka.settling import LAST_WRITE, LONGEST_PAUSE, Settling
from redis_worker.kafka.turns import Turns
from redis_worker.kafka.writer import Entry
from redis_worker.ports import Observer, Partition, Sink
from redis_worker.vocabulary.ids import new_id
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.partition import PartitionStatus
from redis_worker.vocabulary.task import Delivery, Outcome

logger = library_logger(__name__)

# A claim waits so long for a message, in seconds.
_WAIT = 2.0
# Messages that are claimed, or handled and wait for an earlier one, if the sink stores offsets: it gets them in order.
_MOST_HELD = 10_000


class KafkaSource:
    """The messages of topics: claimed from the partitions of this member, settled by committing their offsets.

    With a sink, a message is settled when its value is written. A sink that stores offsets gets the values of each
    partition in the order of offsets, so that an offset covers exactly what is written.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        dead_letters: DeadLetters,
        observer: Observer,
        *,
        sink: Sink | None,
        sink_observer: Observer,
        ordered: str,
        revoke_timeout: float,
    ) -> None:
        """`ordered` is a name of LANES; `revoke_timeout` is in seconds. Raises ConfigurationError."""
        self.worker = new_id()
        self._settings = settings
        self._dead_letters = dead_letters
        self._observer = observer
        self._sink = sink
        self._lane_of = LANES[ordered]
        self._revoke_timeout = revoke_timeout
        self._owned: dict[Partition, OwnedPartition] = {}
        self._buffers = Buffers(self._owned)
        self.group = Group(settings, self, self._buffers, self._new)
        self._commits = Commits(self.group.commit, observer, self._committed)
        self._sink_observer = sink_observer
        self._settling = Settling(
            sink,
            sink_observer,
            self._commits,
            bury=dead_letters.write,
            taken_over=self._taken_over,
            advanced=self._advanced,
        )
        most_held = _MOST_HELD if self._settling.stores_offsets else None
        self._turns = Turns(partial(self._commits.want, urgent=True), most_held=most_held)
        self._news = asyncio.Event()
        self._progress = asyncio.Event()
        self._closing = asyncio.Event()

    def _new(self, name: Partition, mark: Mark, committed: int | None) -> OwnedPartition:
        return OwnedPartition(name, mark, committed, self._lane_of)

    # The state, for people and metrics.

    @property
    def away(self) -> str | None:
        """The name of what is unreachable; None if nothing is."""
        if self._settling.away:
            return "the sink"
        return None if self.group.away is None else "Kafka"

    def partitions(self) -> list[PartitionStatus]:
        """Return the state of the partitions, by name."""
        return [
            PartitionStatus(
                *name,
                next=partition.committed if partition.safe is None else partition.safe,
                end=partition.end,
                in_flight=len(partition.offsets),
                buffered=len(partition.buffer),
                paused=partition.paused,
            )
            for name, partition in sorted(self._owned.items())
        ]

    @property
    def is_busy(self) -> bool:
        """See Owner."""
        return any(len(partition.offsets) or partition.uncommitted for partition in self._turns.partitions)

    # Roles beside the worker.

    def roles(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return what runs beside the worker until it is cancelled."""
        return [self.group.run, self._commits.run, *self._settling.roles()]

    # The queue.

    async def open(self) -> None:
        """Join the group."""
        await self.group.join()

    async def close(self) -> None:
        """Write and commit what is handled, and leave the group; the rest is not committed. Raises nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.wake()
        self._progress.set()
        await self.group.close(LAST_WRITE)
        self._settling.cancel()

    def wake(self) -> None:
        """End the wait of a claim."""
        self._news.set()

    cut_short = False

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """Claim up to `limit` messages. Raises Disconnected while no broker is reachable, and Refused."""
        if self.group.away is not None:
            await self.group.probe()
        found = self._take(limit)
        if not found and wait:
            self._news.clear()
            await happens(self._news, self._turns.until_due(_WAIT))
            found = self._take(limit)
        return found

    def _take(self, limit: int) -> list[Delivery]:
        if (room := self._settling.room) is not None:
            limit = min(limit, room - self._turns.out)
        if self._closing.is_set() or limit <= 0:
            return []
        found = self._turns.take(limit)
        self._buffers.taken()
        return found  # type: ignore[return-value] # a new list

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:  # noqa: ARG002 - the port's signature
        """Return nothing: claims have no replies that could be lost."""
        return []

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Write dead letters; hand values to the sink, or mark the messages as settled, or keep them for a retry."""
        dead = [outcome for outcome in outcomes if outcome.dead and not outcome.delivery.receipt.lost]
        if dead:
            await self._dead_letters.write(dead)
        lost: list[Outcome] = []
        settled: list[KafkaDelivery] = []
        entries: list[Entry] = []
        for outcome in outcomes:
            delivery: Any = outcome.delivery
            partition: OwnedPartition = delivery.receipt
            partition.out -= 1
            if partition.lost:
                lost.append(outcome)
            elif outcome.again is not None:
                self._turns.later(delivery, outcome.again)
            else:
                if partition.lanes.ordered and (following := partition.lanes.leave(delivery)) is not None:
                    self._turns.soon(following)
                value = None if outcome.dead else outcome.result
                if value is None and not self._settling.stores_offsets:
                    settled.append(delivery)
                else:
                    entries.append(Entry(delivery, value))
        self._settling.settle(settled, entries)
        self._buffers.taken()
        return lost

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Keep messages that have not started, to be claimed again first."""
        for delivery in reversed(deliveries):
            assert isinstance(delivery, KafkaDelivery)
            delivery.receipt.out -= 1
            self._turns.first(delivery)
        self._progress.set()

    # The membership, see rebalances.Owner.

    def arrived(self, fetched: Sequence[tuple[OwnedPartition, list[object]]]) -> None:
        """See Owner."""
        for partition, messages in fetched:
            if not partition.lost and not partition.leaving:
                partition.add(messages)
        self._news.set()

    async def assigned(self, partitions: Sequence[OwnedPartition]) -> Mapping[Partition, int]:
        """See Owner. A sink that stores offsets knows where to begin."""
        begin = await self._stored([partition.name for partition in partitions])
        for partition in partitions:
            if (offset := begin.get(partition.name)) is not None:
                if offset > (partition.committed or 0):  # the last commit of its owner before was refused, or lost
                    partition.safe = offset
                    self._commits.want(partition)
                elif offset != partition.committed:
                    partition.mark = partition.mark.committed(offset)
                    partition.committed = offset
            self._owned[partition.name] = partition
            self._turns.partitions.append(partition)
        self._look_for_levels()
        if partitions:
            self._observer.assigned([partition.name for partition in partitions])
        return begin

    async def _stored(self, names: Collection[Partition]) -> Mapping[Partition, int]:
        """Become the owner of partitions by the sink's record; return the offsets that it has stored."""
        if not self._settling.stores_offsets or not names:
            return {}
        assert self._sink is not None
        sink, reconnect = self._sink, Reconnect(self._sink_observer, longest=LONGEST_PAUSE)
        try:
            return await reconnect.call(lambda: sink.take(self._settings.group, self.worker, names), end=self._closing)
        except GivenUp:
            return {}

    async def revoked(self, partitions: Sequence[OwnedPartition]) -> Sequence[TopicPartition]:
        """See Owner. Messages that are out are waited for; those that take too long are abandoned."""
        for partition in partitions:
            partition.leaving = True
            partition.drop()
        end = time.monotonic() + self._revoke_timeout
        self._settling.hurry(True)
        while any(partition.out or partition.writing for partition in partitions) and not self._closing.is_set():
            if (left := end - time.monotonic()) <= 0:
                break
            self._progress.clear()
            await happens(self._progress, left)
        if self._closing.is_set():
            await self._settling.write_last()
        offsets = []
        for partition in partitions:
            partition.wants_open = False
            if (commit := partition.commit()) is not None:
                offsets.append(commit.request())
        self._give_up(partitions, lost=False)
        return offsets

    def lost(self, partitions: Sequence[OwnedPartition]) -> None:
        """See Owner."""
        self._give_up(partitions, lost=True)

    def _give_up(self, partitions: Sequence[OwnedPartition], *, lost: bool) -> None:
        for partition in partitions:
            partition.lost = True
            partition.drop()
            if self._owned.get(partition.name) is partition:
                del self._owned[partition.name]
                self._turns.remove(partition)
        self._settling.forget_owners()
        self._look_for_levels()
        if partitions:
            self._observer.revoked([partition.name for partition in partitions], lost)

    def _taken_over(self, names: Collection[Partition]) -> None:
        """Give up partitions that have another owner by the sink's record: this process was presumed dead."""
        self._give_up([partition for name in names if (partition := self._owned.get(name)) is not None], lost=True)

    def _advanced(self) -> None:
        """Have more messages claimed, and the wait for messages that are out looked at again."""
        self._news.set()
        self._progress.set()

    def _committed(self) -> None:
        """Take note that marks and offsets are committed: more may be claimed."""
        self._look_for_levels()
        self.wake()

    def _look_for_levels(self) -> None:
        """Have values written at once while a search for a guilty message waits for each commit."""
        self._settling.hurry(any(partition.mark.level or partition.leaving for partition in self._turns.partitions))
