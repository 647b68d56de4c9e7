"""Topics that cannot be consumed because Redis refuses a command on their keys; each is retried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from redis_worker.vocabulary.errors import Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()

# The first and the longest pause before a retry, in seconds.
_FIRST, _LONGEST = 5.0, 60.0


class Closable(Protocol):
    """A consumer that was refused: its messages are still in flight if handing them back was refused too."""

    async def close(self) -> None:
        """Hand back the messages in flight. Raises nothing."""


@dataclass(slots=True)
class _Refusal:
    text: str
    pause: float
    again: float
    """The time of the next retry."""
    consumer: Closable | None


class Refusals:
    """The refused topics; the pauses between retries double, up to a minute."""

    def __init__(self) -> None:
        self._refused: dict[str, _Refusal] = {}

    def add(self, topic: str, refused: Refused, now: float, consumer: Closable | None = None) -> None:
        """Record that `topic` was refused; log a warning once for each reason."""
        before, text = self._refused.get(topic), str(refused)
        if before is None or before.text != text:
            logger.warning("the topic %s is not consumed, retrying periodically: %s", topic, text)
        pause = _FIRST if before is None else min(_LONGEST, before.pause * 2)
        consumer = consumer or (before.consumer if before is not None else None)
        self._refused[topic] = _Refusal(text, pause, now + pause, consumer)

    def due(self, now: float) -> set[str]:
        """Return the topics to retry."""
        return {topic for topic, refusal in self._refused.items() if refusal.again <= now}

    def pending(self, now: float) -> set[str]:
        """Return the topics that are not due yet."""
        return self._refused.keys() - self.due(now)

    async def close(self, topic: str) -> None:
        """Hand back the messages that the last consumer of `topic` still holds, uncharged."""
        refusal = self._refused.get(topic)
        if refusal is not None and refusal.consumer is not None:
            await refusal.consumer.close()

    def consumed(self, topic: str) -> None:
        """Record that `topic` is consumed."""
        if self._refused.pop(topic, None) is not None:
            logger.warning("the topic %s is consumed again", topic)

    def forget(self, topic: str) -> None:
        """Stop retrying `topic`."""
        self._refused.pop(topic, None)
