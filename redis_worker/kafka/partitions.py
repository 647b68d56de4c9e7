"""A partition that this process owns, from its assignment to its end: messages fetched, claimed and settled."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

from confluent_kafka import TopicPartition

from redis_worker.kafka.marks import WINDOWS, Mark
from redis_worker.kafka.offsets import Offsets
from redis_worker.kafka.order import LaneOf, Lanes
from redis_worker.ports import Partition
from redis_worker.vocabulary.task import Delivery

_NUMBERS = count()


@dataclass(slots=True, eq=False)
class KafkaDelivery(Delivery):
    """A delivery with its message of confluent-kafka; the receipt is the partition."""

    receipt: OwnedPartition
    offset: int = -1
    message: Any = None

    @property
    def label(self) -> str:
        """The coordinates."""
        return self.coordinates

    @property
    def coordinates(self) -> str:
        """The topic, partition and offset, as "topic[partition]@offset"."""
        return f"{self.receipt.label}@{self.offset}"


class OwnedPartition:
    """One assignment of a partition; the receipt of its messages."""

    def __init__(self, name: Partition, mark: Mark, committed: int | None, lane_of: LaneOf | None) -> None:
        """`committed` is the committed offset that the group has for it, None without one."""
        self.name = name
        self.topic, self.number = name
        self.label = f"{self.topic}[{self.number}]"
        self.mark = mark
        self.committed = committed
        """The offset that is committed, as the brokers have acknowledged it."""
        self.opened = False
        """True once the brokers have acknowledged the mark as open: messages may be claimed."""
        self.wants_open = False
        """True if messages are to be claimed, so that the mark must be open."""
        self.lost = False
        """True once others may own it."""
        self.leaving = False
        """True once nothing more is claimed, because it is revoked."""
        self.paused = False
        self.out = 0
        """Messages handed out and not settled."""
        self.writing = 0
        """Messages handed to the writer and not written."""
        self.buffer: deque[Any] = deque()
        """Messages of confluent-kafka, fetched and not claimed."""
        self.buffered_bytes = 0
        """The size of their values."""
        self.end: int | None = None
        """The offset after the last message at the broker, as last heard."""
        self.offsets = Offsets()
        self.lanes: Lanes[KafkaDelivery] = Lanes(lane_of)
        self.safe: int | None = None
        """The offset to commit: everything before it is settled, and written."""

    @property
    def unwritten(self) -> bool:
        """True while a message is claimed that no commit covers yet."""
        return bool(self.offsets.last >= 0) and (self.committed or 0) <= self.offsets.last

    @property
    def uncommitted(self) -> bool:
        """True if there is something to commit."""
        return self.opened != self.wants_open or (self.safe is not None and self.safe != self.committed)

    def commit(self) -> Commit | None:
        """Return what is to be committed; None if the brokers know it."""
        offset = self.committed if self.safe is None else self.safe
        if offset is None:
            if not self.buffer:
                return None
            offset = int(self.buffer[0].offset())  # the group has committed nothing yet
        further = self.committed is None or offset > self.committed
        if not further and self.opened == self.wants_open:
            return None
        mark = self.mark.committed(offset) if further else self.mark
        return Commit(self, offset, replace(mark, open=self.wants_open))

    def room(self) -> int:
        """Return how many messages may be claimed."""
        room = self.lanes.room()
        window = WINDOWS[self.mark.level]
        if not self.unwritten:
            return min(room, window)
        return min(room, window - (self.offsets.last + 1 - (self.committed or 0)))

    def take(self, limit: int) -> list[KafkaDelivery]:
        """Claim up to `limit` buffered messages, and hand out those that may start. The hot path."""
        buffer, deaths = self.buffer, self.mark.deaths
        messages = [buffer.popleft() for _ in range(min(limit, len(buffer)))]
        raws = [message.value() or b"" for message in messages]
        offsets = [message.offset() for message in messages]
        self.buffered_bytes -= sum(map(len, raws))
        self.offsets.claim(offsets)
        deliveries = [
            KafkaDelivery(raw, self, deaths, 0, False, False, number, offset, message)
            for raw, number, offset, message in zip(raws, _NUMBERS, offsets, messages)  # noqa: B905 - without end
        ]
        if self.lanes.ordered:
            deliveries = list(filter(self.lanes.enter, deliveries))
        self.out += len(deliveries)
        return deliveries

    def add(self, messages: list[Any]) -> None:
        """Add fetched messages to the buffer."""
        self.buffer.extend(messages)
        self.buffered_bytes += sum(map(len, messages))

    def drop(self) -> None:
        """Forget the messages that are fetched and not claimed."""
        self.buffer.clear()
        self.buffered_bytes = 0


class Commit(NamedTuple):
    """An offset and a mark to commit for a partition."""

    partition: OwnedPartition
    offset: int
    mark: Mark

    def request(self) -> TopicPartition:
        """Return it as confluent-kafka takes it."""
        return TopicPartition(*self.partition.name, self.offset, self.mark.metadata())

    def acknowledge(self) -> None:
        """Note that the brokers have it."""
        partition = self.partition
        partition.committed, partition.mark, partition.opened = self.offset, self.mark, self.mark.open
