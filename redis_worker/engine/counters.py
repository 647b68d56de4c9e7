"""The counters of a pool, kept in batches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Final

from redis_worker.ports import Observer
from redis_worker.vocabulary.task import Delivery, Outcome, but_successes

_DEATHS = attrgetter("deaths")


@dataclass(slots=True)
class Counters:
    """Counts since the pool was made."""

    claimed: int = 0
    succeeded: int = 0
    """Settled with a success result."""
    failed: int = 0
    """Settled with an error result, or without one."""
    dead: int = 0
    """Failed tasks that became dead letters."""
    retried: int = 0
    """Delayed for a retry."""
    redelivered: int = 0
    """Claimed after another worker died holding them."""
    skipped: int = 0
    """Acknowledged without being handled: completed before under the same id."""
    refused: int = 0
    """Finished here after another worker took the task: nothing was written."""
    released: int = 0
    """Released to the queue."""
    recovered: int = 0
    """Tasks of dead workers that this worker returned to the queue."""
    reconnects: int = 0
    started_at: float = field(default_factory=time.monotonic)

    @property
    def processed(self) -> int:
        """Tasks settled: succeeded, failed or skipped."""
        return self.succeeded + self.failed + self.skipped

    @property
    def rate(self) -> float:
        """Tasks settled per second, since the pool was made."""
        return self.processed / max(time.monotonic() - self.started_at, 1e-9)

    def snapshot(self) -> dict[str, int]:
        """Return the counts of COUNTED, ready for JSON."""
        return {name: getattr(self, name) for name in COUNTED}

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the snapshot of another process."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)


COUNTED: Final = tuple(count.name for count in fields(Counters) if count.name != "started_at")
"""The names of the counts."""


class Counting(Observer):
    """An observer that maintains `counters`."""

    def __init__(self) -> None:
        self.counters = Counters()

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        self.counters.claimed += len(deliveries)
        if any(map(_DEATHS, deliveries)):  # rarely, and without a step of the interpreter for each task
            self.counters.redelivered += sum(delivery.deaths > 0 for delivery in deliveries)

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        counters, exceptional = self.counters, but_successes(outcomes)
        counters.succeeded += len(outcomes) - len(exceptional)
        for outcome in exceptional:
            if outcome.skipped:
                counters.skipped += 1
                continue
            if outcome.again is not None:
                counters.retried += 1
            else:
                counters.failed += 1
                counters.dead += outcome.dead
            self.failure(outcome)

    def failure(self, outcome: Outcome) -> None:
        """Look at a failed attempt; for subclasses."""

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        self.counters.refused += len(outcomes)

    def released(self, deliveries: Sequence[Delivery]) -> None:
        self.counters.released += len(deliveries)

    def recovered(self, worker: str, count: int) -> None:  # noqa: ARG002 - the port's signature
        self.counters.recovered += count

    def reconnected(self, seconds: float) -> None:  # noqa: ARG002 - the port's signature
        self.counters.reconnects += 1
