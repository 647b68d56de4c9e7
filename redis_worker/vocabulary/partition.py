"""The state of partitions, for status and metrics."""

from __future__ import annotations

from typing import NamedTuple


class PartitionStatus(NamedTuple):
    """A partition, and how far this worker is with it."""

    topic: str
    partition: int
    next: int | None
    """The offset of the first message that is not settled; None before the first message."""
    end: int | None
    """The offset after the last message at the broker, as last heard; None if it is unknown."""
    in_flight: int
    """Messages claimed and not settled."""
    buffered: int
    """Messages fetched and not claimed."""
    paused: bool
    """True while nothing is fetched, because enough is buffered."""

    @property
    def lag(self) -> int | None:
        """The number of messages at the broker that are not settled, as last heard; None if it is unknown."""
        return None if self.next is None or self.end is None else max(0, self.end - self.next)


class GroupStatus(NamedTuple):
    """A topic of a file's Kafka part, as the brokers describe it."""

    part: str
    topic: str
    group: str
    partitions: int = 0
    members: int | None = None
    """Members of the group; None if the brokers do not report it."""
    lag: int | None = None
    """Messages that the group has still to read; None if the brokers do not answer."""
    problem: str | None = None
    """Why the topic cannot be read."""
