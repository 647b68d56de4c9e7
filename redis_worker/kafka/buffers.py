"""The buffers of fetched messages: fetching waits while they are full, then the fullest partitions are paused.

A pause has librdkafka throw away what it has queued and fetch it again, so it comes only where waiting takes long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from confluent_kafka import TopicPartition

from redis_worker.engine.waiting import happens
from redis_worker.kafka.partitions import OwnedPartition
from redis_worker.ports import Partition

# Fetching waits while so much is fetched and not claimed: messages, and bytes.
_MESSAGES = 10_000
_BYTES = 64 * 1024 * 1024
# Fetching goes on below this share of it.
_ENOUGH = 0.5
# How long it waits before it pauses partitions, in seconds; a rebalance waits as long.
_PATIENCE = 0.5


class Buffers:
    """The buffers of all partitions of a member."""

    def __init__(self, owned: Mapping[Partition, OwnedPartition]) -> None:
        """`owned` may change."""
        self._owned = owned
        self._room = asyncio.Event()

    def taken(self) -> None:
        """Note that messages have left the buffers. The hot path."""
        if not self._room.is_set() and not self._full(_ENOUGH):
            self._room.set()

    async def regulate(self) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Wait for room; return the partitions to pause and those to resume."""
        owned = list(self._owned.values())
        paused = [partition for partition in owned if partition.paused]
        resumed = _set([each for each in paused if not _fills(each, _share(owned) / 2)], paused=False)
        if not self._full(1.0):
            return [], resumed
        if not paused:
            self._room.clear()
            if await happens(self._room, _PATIENCE):
                return [], []
        filled = [each for each in owned if not each.paused and _fills(each, _share(owned))]
        return _set(filled, paused=True), resumed

    def _full(self, share: float) -> bool:
        messages = size = 0
        for partition in self._owned.values():
            messages += len(partition.buffer)
            size += partition.buffered_bytes
        return messages >= _MESSAGES * share or size >= _BYTES * share


def _share(owned: list[OwnedPartition]) -> float:
    """Return the share of a partition that is worth a pause: when all is full, at least one has it."""
    return 0.5 / max(1, len(owned))


def _fills(partition: OwnedPartition, share: float) -> bool:
    return len(partition.buffer) >= max(1.0, _MESSAGES * share) or partition.buffered_bytes >= _BYTES * share


def _set(partitions: list[OwnedPartition], *, paused: bool) -> list[TopicPartition]:
    for partition in partitions:
        partition.paused = paused
    return [TopicPartition(*partition.name) for partition in partitions]
