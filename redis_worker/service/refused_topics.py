"""Topics that cannot be consumed for now, because Redis refuses something of theirs: each is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from redis_worker.vocabulary.errors import Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()

# When a topic is tried again for the first time, and the longest pause, in seconds.
_FIRST, _LONGEST = 5.0, 60.0


class Closable(Protocol):
    """A consumer that was refused: what it held is still in flight where handing it back was refused too."""

    async def close(self) -> None:
        """Hand back what is in flight. Raises nothing."""


@dataclass(slots=True)
class _Refusal:
    text: str
    pause: float
    again: float
    """When to try again."""
    consumer: Closable | None


class Refusals:
    """The refused topics. The pauses between tries double, up to a minute."""

    def __init__(self) -> None:
        self._refused: dict[str, _Refusal] = {}

    def add(self, topic: str, refused: Refused, now: float, consumer: Closable | None = None) -> None:
        """Note that `topic` was refused; a warning says so, once for each reason."""
        before, text = self._refused.get(topic), str(refused)
        if before is None or before.text != text:
            logger.warning("the topic %s is not consumed, and tried again now and then: %s", topic, text)
        pause = _FIRST if before is None else min(_LONGEST, before.pause * 2)
        consumer = consumer or (before.consumer if before is not None else None)
        self._refused[topic] = _Refusal(text, pause, now + pause, consumer)

    def due(self, now: float) -> set[str]:
        """The topics to be tried again."""
        return {topic for topic, refusal in self._refused.items() if refusal.again <= now}

    def pending(self, now: float) -> set[str]:
        """The topics that are not tried yet."""
        return self._refused.keys() - self.due(now)

    async def close(self, topic: str) -> None:
        """Have what the last consumer of `topic` still held handed back, uncharged."""
        refusal = self._refused.get(topic)
        if refusal is not None and refusal.consumer is not None:
            await refusal.consumer.close()

    def consumed(self, topic: str) -> None:
        """Note that `topic` is consumed."""
        if self._refused.pop(topic, None) is not None:
            logger.warning("the topic %s is consumed again", topic)

    def forget(self, topic: str) -> None:
        """Try `topic` no more."""
        self._refused.pop(topic, None)
