"""The state of a worker, for status and health checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Self

from redis_worker.vocabulary.partition import PartitionStatus

Condition = Literal[
    "running",
    "waiting for Redis",
    "Redis is away",
    "waiting for Kafka",
    "Kafka is away",
    "the sink is away",
    "stopping",
]
"""`running` is connected and claiming; `waiting for …` is before the first connection, `… is away` after it was lost;
`stopping` is from the stop request, or from the last claim, to the end."""

PartState = Literal[Condition, "starting", "restarting", "failed", "ended"]
"""A Condition, or: `starting` is before its first run; `restarting` waits for its next one after a failure, `failed`
had too many of them, `ended` has returned and will not run again."""

PartKind = Literal["pool", "topics", "kafka", "daemon", "cron job"]

READY = ("running", "ended")
"""The states in which a part counts as ready."""


class Consuming(NamedTuple):
    """A queue that a worker claims from."""

    queue: str
    """The list."""
    topic: str
    """The topic of the list; the list itself for a pool."""
    processor: str
    """The name of the processor or handler."""
    in_flight: int
    """Tasks claimed here and not settled."""
    part: str = ""
    """The part of a supervisor that claims them; empty without a supervisor."""
    partitions: Sequence[PartitionStatus] = ()
    """The partitions of Kafka topics that this worker owns."""

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """Return the queue that was sent to another process as JSON."""
        queue = cls(*values)
        return queue._replace(partitions=[PartitionStatus(*partition) for partition in queue.partitions])


def lag_of(queues: Iterable[Consuming]) -> int | None:
    """Return the number of messages in the queues' partitions that are not settled; None if it is unknown."""
    lags = [partition.lag for queue in queues for partition in queue.partitions]
    known = [lag for lag in lags if lag is not None]
    return sum(known) if known else None


class PartStatus(NamedTuple):
    """The state of one part of a supervisor."""

    name: str
    kind: PartKind
    state: PartState
    restarts: int = 0
    """Restarts, summed over its processes."""
    error: str | None = None
    """The last failure, in one line; None without a failure since it was started or reloaded."""
    processes: int = 0
    """The number of its processes; 0 if it runs in the supervisor's event loop."""
    lag: int | None = None
    """The messages of its Kafka partitions that are not settled; None for other parts, or if it is unknown."""
