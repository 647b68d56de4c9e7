"""Dead letters in a topic: the message as it was, with its coordinates and the reason in headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from redis_worker.kafka.errors import UnknownTopic
from redis_worker.kafka.partitions import KafkaDelivery
from redis_worker.kafka.producing import Producing, Record
from redis_worker.kafka.settings import KafkaSettings
from redis_worker.vocabulary.errors import Refused
from redis_worker.vocabulary.task import Outcome

HEADER = "redis-worker-"
"""The prefix of the headers."""

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
        self._producing = Producing(settings.producer(), topic)

    async def open(self) -> None:
        """See DeadLetters. Raises UnknownTopic if there is no such topic, and the brokers make none."""
        if not await self._producing.open():
            raise UnknownTopic(
                f"Kafka at {self._settings.brokers} has no topic {self._topic!r} for dead letters: create it, or set "
                'dead_letters to another topic or "none"'
            )

    async def close(self) -> None:
        """See DeadLetters."""
        await self._producing.close()

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """See DeadLetters. A letter that is too large is written without the value."""
        too_large = await self._producing.send([self._letter(outcome, whole=True) for outcome in outcomes])
        if rest := [self._letter(outcomes[index], whole=False) for index in too_large]:
            for reason in (await self._producing.send(rest)).values():
                raise Refused(reason)

    def _letter(self, outcome: Outcome, *, whole: bool) -> Record:
        assert isinstance(outcome.delivery, KafkaDelivery)
        message = outcome.delivery.message
        headers = [*(message.headers() or []), *_headers(outcome, self._settings.group, whole)]
        return Record(message.value() if whole else None, message.key(), headers)


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
