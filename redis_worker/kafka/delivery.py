"""A claimed message of Kafka."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis_worker.vocabulary.task import Delivery

if TYPE_CHECKING:
    from redis_worker.kafka.partitions import OwnedPartition


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
        return f"{self.receipt.topic}[{self.receipt.number}]@{self.offset}"
