"""The turns: which messages of a member are claimed next."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

from redis_worker.kafka.marks import ALONE
from redis_worker.kafka.partitions import KafkaDelivery, OwnedPartition

# The least share of a partition, in messages.
_LEAST = 500


class Turns:
    """The messages that may be claimed: first those that were claimed before, then fetched ones of each partition in
    turn.
    """

    def __init__(self, open_mark: Callable[[OwnedPartition], None], *, most_held: int | None) -> None:
        """`open_mark` has the mark of a partition committed as open: until then nothing of it may be claimed.

        `most_held` limits the messages that are claimed and not settled, or wait for one that is tried again. Each
        partition has an equal share of it, so that none holds up another.
        """
        self._open_mark = open_mark
        self._most_held = most_held
        self.partitions: deque[OwnedPartition] = deque()
        """The partitions of the member, in the order of their turns."""
        self._ready: deque[KafkaDelivery] = deque()
        """Messages that are claimed and may start: returned, due again, or next in their lane."""
        self._again: list[tuple[float, int, KafkaDelivery]] = []
        """Messages that wait for a retry, by the time of it."""
        self._numbers = count()

    @property
    def out(self) -> int:
        """The number of messages that are handed out and not settled."""
        return sum(partition.out for partition in self.partitions)

    def until_due(self, most: float) -> float:
        """Return the time until a message is due again, in seconds, `most` at the most."""
        return min(most, max(0.0, self._again[0][0] - time.monotonic())) if self._again else most

    def first(self, delivery: KafkaDelivery) -> None:
        """Have a message claimed before all others."""
        self._ready.appendleft(delivery)

    def soon(self, delivery: KafkaDelivery) -> None:
        """Have a message claimed before those that are only fetched."""
        self._ready.append(delivery)

    def later(self, delivery: KafkaDelivery, delay: float) -> None:
        """Have a message claimed in `delay` seconds, as a retry."""
        again = replace(delivery, retries=delivery.retries + 1)
        heapq.heappush(self._again, (time.monotonic() + delay, next(self._numbers), again))

    def remove(self, partition: OwnedPartition) -> None:
        """Forget a partition that is lost, and its messages."""
        self.partitions.remove(partition)
        self._again = [entry for entry in self._again if entry[2].receipt is not partition]
        heapq.heapify(self._again)

    def take(self, limit: int) -> list[KafkaDelivery]:
        """Claim up to `limit` messages."""
        now = time.monotonic()
        while self._again and self._again[0][0] <= now:
            self._ready.append(heapq.heappop(self._again)[2])
        if suspects := [partition for partition in self.partitions if partition.mark.level == ALONE]:
            found = self._take_alone(suspects, limit)
        else:
            found = self._take_any(limit)
        return found

    def _take_any(self, limit: int) -> list[KafkaDelivery]:
        found = self._take_ready(limit)
        self._take_fetched(limit, found)
        return found

    def _take_ready(self, limit: int, level: int | None = None) -> list[KafkaDelivery]:
        """Take messages that may start; with a `level`, only of partitions of this level."""
        found: list[KafkaDelivery] = []
        for _ in range(len(self._ready)):
            if len(found) == limit:
                break
            delivery = self._ready.popleft()
            partition = delivery.receipt
            if partition.lost or partition.leaving:
                continue
            if level is not None and partition.mark.level != level:
                self._ready.append(delivery)
            else:
                partition.out += 1
                found.append(delivery)
        return found

    def _take_fetched(self, limit: int, found: list[KafkaDelivery]) -> None:
        """Add fetched messages to `found`, of each partition in turn."""
        turns = self.partitions
        for _ in range(len(turns)):
            if (room := limit - len(found)) <= 0:
                return
            partition = turns[0]
            turns.rotate(-1)
            if partition.buffer and not partition.leaving and self._is_open(partition):
                fair = max(1, room // 2) if len(turns) > 1 else room
                found += partition.take(min(fair, self._room(partition)))

    def _room(self, partition: OwnedPartition) -> int:
        """Return how many messages of `partition` may be claimed; 0 or less for none."""
        if self._most_held is None:
            return partition.room()
        share = max(_LEAST, self._most_held // len(self.partitions))
        return min(partition.room(), share - partition.offsets.held)

    def _take_alone(self, suspects: Sequence[OwnedPartition], limit: int) -> list[KafkaDelivery]:
        """Take one message of `suspects` while no other is out: a worker that dies now, dies of it.

        While they have no message that may start, the other partitions go on.
        """
        is_out = any(partition.out for partition in self.partitions)
        if any(partition.out for partition in suspects):
            return []
        if any(delivery.receipt.mark.level == ALONE for delivery in self._ready):
            return [] if is_out else self._take_ready(1, ALONE)
        for partition in suspects:
            if not partition.buffer or partition.leaving or len(partition.offsets):
                continue  # its message waits for a retry
            if is_out or not self._is_open(partition) or partition.room() <= 0:
                return []
            return partition.take(1)
        return self._take_any(limit)

    def _is_open(self, partition: OwnedPartition) -> bool:
        """Return True if the mark of `partition` is known to the brokers as open; otherwise have it committed."""
        if partition.opened:
            return True
        partition.wants_open = True
        self._open_mark(partition)
        return False
