"""The producer: sends reports to Kafka, and notes what must become of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from examples.covid_persister.reports import Key, Report
from redis_worker import RedisWorkerError


@dataclass
class Expected:
    """The outcome of all reports that were sent."""

    rows: dict[Key, tuple[int, int]] = field(default_factory=dict)
    """Cases and offset of the newest report of each key: what the table must hold."""
    dead: dict[tuple[int, int], str] = field(default_factory=dict)
    """By partition and offset, a text in the reason of each dead letter."""
    first: dict[int, int] = field(default_factory=dict)
    """The offset of the first report in each partition: what an earlier run has left may be delivered again."""


class Sender:
    """A producer that neither loses nor repeats nor reorders what it sends."""

    def __init__(self, brokers: str, topic: str, **properties: Any) -> None:
        """`properties` are passed to librdkafka."""
        self.expected = Expected()
        self._topic = topic
        self._refused: KafkaError | None = None
        fast = {"linger.ms": 20, "compression.type": "lz4", "queue.buffering.max.messages": 200_000}
        safe = {"enable.idempotence": True, "delivery.timeout.ms": 120_000}
        self._producer = Producer({"bootstrap.servers": brokers, "log_level": 0, **fast, **safe, **properties})

    def send(self, reports: Iterable[Report]) -> int:
        """Send reports, and return their number when Kafka has all of them. Raises RedisWorkerError."""
        sent = 0
        for sent, report in enumerate(reports, 1):
            self._produce(report)
            if sent % 1000 == 0:
                self._producer.poll(0)
        self._producer.flush()
        if self._refused is not None:
            raise RedisWorkerError(f"Kafka refuses reports: {self._refused.str()}")
        return sent

    def _produce(self, report: Report) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._refused = error
            else:
                self._note(report, message)

        while True:
            try:
                self._producer.produce(self._topic, report.value, report.key, on_delivery=delivered)
                return
            except BufferError:  # the queue is full
                self._producer.poll(0.1)

    def _note(self, report: Report, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        self.expected.first.setdefault(partition, offset)
        if report.row is None:
            assert report.fault is not None
            self.expected.dead[partition, offset] = report.fault
        else:
            # Reports of a key are in one partition, and acknowledged in order.
            key, cases = report.row
            self.expected.rows[key] = (cases, offset)
