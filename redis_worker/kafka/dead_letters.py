"""Dead letters in a topic: the message as it was, with its coordinates and the reason in headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.kafka.errors import UnknownTopic, error_of, translated
from redis_worker.kafka.partitions import KafkaDelivery
from redis_worker.kafka.settings import KafkaSettings
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.task import Outcome

HEADER = "redis-worker-"
"""The prefix of the headers."""

# The time limits, in seconds: of the question for the topic, and of a delivery.
_ASK = 5.0
_DELIVERY = 30.0
# Letters that are sent at once.
_MOST = 1000
# The most of a reason, in characters: brokers limit a message to 1 MB.
_REASON = 10_000


class DeadLetters(Protocol):
    """A place for dead letters. Raises Disconnected or Refused."""

    async def open(self) -> None:
        """Check that letters can be written; may be called again after Disconnected."""

    async def close(self) -> None:
        """Give up connections; may be called again."""

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Write a letter for each of `outcomes`, and return once they are safe. Repeated after Disconnected."""


class DeadTopic:
    """A topic of dead letters, on the brokers of the messages."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._producer: Any = None
        self._threads = ThreadPool(1, "redis-worker-kafka-dead")

    async def open(self) -> None:
        """See DeadLetters. Raises UnknownTopic if there is no such topic, and the brokers make none."""
        if self._producer is None:
            configuration = {**self._settings.producer(), "delivery.timeout.ms": int(_DELIVERY * 1000)}
            self._producer = Producer({**configuration, "logger": _Quiet()})
        await self._threads.run(self._check)

    async def close(self) -> None:
        """See DeadLetters."""
        if self._producer is not None:
            self._producer = None
            self._threads.close()

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """See DeadLetters."""
        for start in range(0, len(outcomes), _MOST):
            await self._threads.run(self._send, outcomes[start : start + _MOST])

    def _check(self) -> None:
        try:
            found = self._producer.list_topics(self._topic, timeout=_ASK).topics[self._topic]
        except KafkaException as error:
            raise translated(error_of(error)) from None
        if found.error is not None and not found.error.retriable():
            raise UnknownTopic(
                f"Kafka at {self._settings.brokers} has no topic {self._topic!r} for dead letters: create it, or set "
                'dead_letters to another topic or "none"'
            )

    def _send(self, outcomes: Sequence[Outcome]) -> None:
        errors: list[KafkaError] = []
        too_large: list[Outcome] = []
        for outcome in outcomes:
            self._produce(outcome, errors, too_large, whole=True)
        self._flush(errors)
        for outcome in too_large:
            self._produce(outcome, errors, [], whole=False)
        self._flush(errors)

    def _produce(self, outcome: Outcome, errors: list[KafkaError], too_large: list[Outcome], *, whole: bool) -> None:
        def delivered(error: KafkaError | None, _: object) -> None:
            if error is None:
                return
            if whole and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                too_large.append(outcome)
            else:
                errors.append(error)

        assert isinstance(outcome.delivery, KafkaDelivery)
        message = outcome.delivery.message
        headers = [*(message.headers() or []), *_headers(outcome, self._settings.group, whole)]
        value = message.value() if whole else None
        try:
            self._producer.produce(self._topic, value, message.key(), headers=headers, on_delivery=delivered)
        except KafkaException as error:
            delivered(error_of(error), None)
        except BufferError:
            raise Disconnected("too many dead letters wait for the brokers") from None

    def _flush(self, errors: list[KafkaError]) -> None:
        """Wait for the deliveries. Raises the first of `errors`."""
        left = self._producer.flush(_DELIVERY)
        if errors:
            raise translated(errors[0])
        if left:
            raise Disconnected("the brokers do not acknowledge dead letters")


class NoDeadLetters:
    """No place: dead letters are counted and logged."""

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Do nothing."""


def _headers(outcome: Outcome, group: str, whole: bool) -> list[tuple[str, bytes]]:
    delivery = outcome.delivery
    assert isinstance(delivery, KafkaDelivery)
    reason = (outcome.error or "")[:_REASON]
    kind, milliseconds = delivery.message.timestamp()
    values = {
        "topic": delivery.receipt.topic,
        "partition": str(delivery.receipt.number),
        "offset": str(delivery.offset),
        "group": group,
        "reason": reason,
        "attempts": str(delivery.attempt),
        "timestamp": str(milliseconds) if kind else "",
    }
    if not whole:
        values["size"] = str(len(delivery.raw))
    return [(HEADER + name, value.encode(errors="backslashreplace")) for name, value in values.items()]


class _Quiet:
    def log(self, *_: object) -> None:
        """Drop a line of librdkafka: errors arrive with the delivery."""
