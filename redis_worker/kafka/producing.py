"""Messages to a topic, that are safe once they are sent: for dead letters, and for a sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.kafka.errors import error_of, translated
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected

# The time limits, in seconds: of the question for the topic, and of a delivery.
_ASK = 5.0
_DELIVERY = 30.0
# Messages that are sent at once.
_MOST = 1000
# Errors that concern the message alone.
_OWN = frozenset((KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD))


class Record(NamedTuple):
    """A message to send."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Producing:
    """A producer for one topic. Its calls wait for the brokers, so a thread makes them."""

    def __init__(self, configuration: Mapping[str, Any], topic: str) -> None:
        self._configuration = {**configuration, "delivery.timeout.ms": int(_DELIVERY * 1000), "logger": _Quiet()}
        self._topic = topic
        self._producer: Any = None
        self._threads = ThreadPool(1, "redis-worker-kafka-out")

    async def open(self) -> bool:
        """Connect, and return True if the topic exists, or the brokers make it. Raises Disconnected or Refused."""
        if self._producer is None:
            try:
                self._producer = Producer(self._configuration)
            except (KafkaException, TypeError, ValueError) as error:
                raise ConfigurationError(f"the settings of a Kafka producer are not valid: {error}") from None
        return await self._threads.run(self._exists)

    async def close(self) -> None:
        """Give up the connections; may be called again."""
        if self._producer is not None:
            self._producer = None
            self._threads.close()

    async def send(self, records: Sequence[Record]) -> dict[int, str]:
        """Return once all brokers that must have the records have them; those refused alone by index, with the reason.

        Raises Disconnected: what is sent again may come twice. Raises Refused.
        """
        refused: dict[int, str] = {}
        for start in range(0, len(records), _MOST):
            found = await self._threads.run(self._send, records[start : start + _MOST])
            refused |= {start + index: reason for index, reason in found.items()}
        return refused

    def _exists(self) -> bool:
        try:
            found = self._producer.list_topics(self._topic, timeout=_ASK).topics[self._topic]
        except KafkaException as error:
            raise translated(error_of(error)) from None
        return found.error is None or bool(found.error.retriable())

    def _send(self, records: Sequence[Record]) -> dict[int, str]:
        failed: dict[int, KafkaError] = {}

        def delivered(index: int, error: KafkaError | None, _: object) -> None:
            if error is not None:
                failed[index] = error

        for index, record in enumerate(records):
            delivery = partial(delivered, index)
            try:
                self._producer.produce(
                    self._topic, record.value, record.key, headers=list(record.headers), on_delivery=delivery
                )
            except KafkaException as error:
                failed[index] = error_of(error)
            except BufferError:
                raise Disconnected("too many messages wait for the brokers") from None
        left = self._producer.flush(_DELIVERY)
        for problem in failed.values():
            if problem.code() not in _OWN:
                raise translated(problem)
        if left:
            raise Disconnected("the brokers do not acknowledge messages")
        return {index: str(translated(problem)) for index, problem in failed.items()}


class _Quiet:
    def log(self, *_: object) -> None:
        """Drop a line of librdkafka: errors arrive with the delivery."""
