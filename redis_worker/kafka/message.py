"""A message of Kafka, as a handler gets it."""

from __future__ import annotations

from typing import Any, NamedTuple


class KafkaMessage(NamedTuple):
    """The argument of a handler of a Kafka worker. It has the attributes of a `Message`: a handler can serve both."""

    id: str
    """Its coordinates: "topic[partition]@offset"."""
    topic: str
    data: Any
    """The decoded value."""
    published_at: float | None
    """The message's timestamp, in seconds since the epoch; None without one."""
    attempt: int
    """1 for the first delivery, plus 1 for each retry and each death of a worker."""
    partition: int
    offset: int
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
