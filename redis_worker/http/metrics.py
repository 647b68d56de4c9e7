"""What is counted and measured of queues, by the batch, and of cron jobs; nothing here knows how it is shown."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redis_worker.engine.counters import COUNTED, Counting
from redis_worker.vocabulary.ids import new_id
from redis_worker.vocabulary.stamps import made_at
from redis_worker.vocabulary.task import Delivery, Outcome

OUTCOMES = ("success", "error", "dead", "retried", "skipped", "refused")
"""What can become of a task that was handled; `refused` is one whose result was not written: it was done elsewhere."""

PROCESSING_BOUNDS = (
    *(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
RUN_BOUNDS = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
LATENCY_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

# Of each claim so many tasks at the most are read for when they were made: reading all would double the parsing.
_SAMPLES = 10
# And none that is longer, in bytes.
_LONGEST = 8192
# So many lives of child processes are known to be over: a last word may be read late.
_REMEMBERED = 1000


class Histogram:
    """How many values lie up to each of `bounds`, and what they sum up to."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many are above the bound before and up to this one; last, those above all."""
        self.sum = 0.0

    def add(self, values: Sequence[float]) -> None:
        if not values:
            return
        self.sum += sum(values)
        bounds, counts = self.bounds, self.counts
        first, last = bisect_left(bounds, min(values)), bisect_left(bounds, max(values))
        if first == last:  # often: what is done together is of a kind
            counts[first] += len(values)
            return
        for value in values:
            counts[bisect_left(bounds, value)] += 1

    def snapshot(self) -> dict[str, Any]:
        """What it holds, as JSON has it."""
        return {"counts": list(self.counts), "sum": self.sum}

    def absorb(self, snapshot: Mapping[str, Any]) -> None:
        """Add what another one of the same bounds held."""
        self.counts = [mine + its for mine, its in zip(self.counts, snapshot["counts"], strict=True)]
        self.sum += snapshot["sum"]


class QueueMetrics(Counting):
    """The counts and times of one queue and its processor."""

    def __init__(self) -> None:
        super().__init__()
        self.processing = Histogram(PROCESSING_BOUNDS)
        self.latency = Histogram(LATENCY_BOUNDS)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many tasks had each of OUTCOMES."""
        counted = self.counters
        failed = counted.failed - counted.dead
        counts = (counted.succeeded, failed, counted.dead, counted.retried, counted.skipped, counted.refused)
        return dict(zip(OUTCOMES, counts, strict=True))

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        super().claimed(deliveries)
        now, waited = time.time(), []
        for delivery in deliveries[:: len(deliveries) // _SAMPLES + 1]:
            if delivery.attempt > 1 or len(delivery.raw) > _LONGEST:
                continue
            if (made := made_at(delivery.raw)) is not None:
                waited.append(max(0.0, now - made))
        self.latency.add(waited)

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        super().settled(outcomes)
        # A task that was never run took exactly no time.
        self.processing.add([outcome.seconds for outcome in outcomes if outcome.seconds])

    def snapshot(self) -> dict[str, Any]:
        """What was counted, as JSON has it."""
        return {
            "counters": {name: getattr(self.counters, name) for name in COUNTED},
            "processing": self.processing.snapshot(),
            "latency": self.latency.snapshot(),
        }

    def absorb(self, snapshot: Mapping[str, Any]) -> None:
        """Add what another process has counted."""
        self.counters.add(snapshot["counters"])
        self.processing.absorb(snapshot["processing"])
        self.latency.absorb(snapshot["latency"])


def _add(counts: dict[str, int], others: Mapping[str, int]) -> None:
    for name, count in others.items():
        counts[name] = counts.get(name, 0) + count


class JobMetrics:
    """Of one cron job."""

    def __init__(self) -> None:
        # Those that alerts are about are there from the beginning: what is not there does not rise.
        self.outcomes = {"success": 0, "error": 0}
        self.seconds = Histogram(RUN_BOUNDS)
        self.succeeded_at: float | None = None
        """When it last succeeded, in seconds since the epoch."""

    def outcome(self, outcome: str, seconds: float = 0.0) -> None:
        """A run has ended as "success" or otherwise; `seconds` is how long it took, 0 where nothing was run."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if seconds:
            self.seconds.add([seconds])
        if outcome == "success":
            self.succeeded_at = time.time()

    def snapshot(self) -> dict[str, Any]:
        """What was counted, as JSON has it."""
        return {
            "outcomes": dict(self.outcomes),
            "seconds": self.seconds.snapshot(),
            "succeeded_at": self.succeeded_at,
        }

    def absorb(self, snapshot: Mapping[str, Any]) -> None:
        """Add what another process has counted."""
        _add(self.outcomes, snapshot["outcomes"])
        self.seconds.absorb(snapshot["seconds"])
        times = [at for at in (self.succeeded_at, snapshot["succeeded_at"]) if at is not None]
        self.succeeded_at = max(times, default=None)


class Measured(NamedTuple):
    """A queue, as its metrics are labelled."""

    queue: str
    processor: str
    part: str = ""
    """The part of a supervisor that works on it; empty where there is none."""


class Metrics:
    """Of every queue and every cron job that this process, or a child of it, has worked on.

    A child tells all that it has counted in its life, again and again, and the last word of each life counts.
    """

    def __init__(self) -> None:
        self.queues: dict[Measured, QueueMetrics] = {}
        self.jobs: dict[str, JobMetrics] = {}
        """By name."""
        self.processes: dict[str, int] = {}
        """The ids of the processes that parts have of their own, by "part#number"."""
        self._life = new_id()
        self._told: dict[str, dict[str, Mapping[str, Any]]] = {}
        """By source and life: the last snapshot of the child that lives, and of those that nobody has retired."""
        self._retired: deque[str] = deque(maxlen=_REMEMBERED)
        """Lives that are over."""

    def of(self, queue: str, processor: str, part: str = "") -> QueueMetrics:
        """The observer for `queue`; it goes on counting when a topic is stopped and started again."""
        return self.queues.setdefault(Measured(queue, processor, part), QueueMetrics())

    def job(self, name: str) -> JobMetrics:
        """The numbers of the cron job `name`."""
        return self.jobs.setdefault(name, JobMetrics())

    def snapshot(self) -> dict[str, Any]:
        """All numbers since this was made, as JSON has them, for the parent's `absorb`."""
        total = self.total()
        return {
            "life": self._life,
            "queues": [[*measured, metrics.snapshot()] for measured, metrics in total.queues.items()],
            "jobs": {name: metrics.snapshot() for name, metrics in total.jobs.items()},
        }

    def absorb(self, source: str, snapshot: Mapping[str, Any]) -> None:
        """Take the snapshot of a child in place of its last one. `source` is "part#number".

        What comes after its life was retired is too late to be counted.
        """
        if (life := snapshot["life"]) not in self._retired:
            self._told.setdefault(source, {})[life] = snapshot

    def retire(self, source: str) -> None:
        """The child has ended: what it told last stays counted, and its successor begins at nothing."""
        self.processes.pop(source, None)
        for life, last in self._told.pop(source, {}).items():
            self._retired.append(life)
            self._add(source, last)

    def total(self) -> Metrics:
        """The numbers of all lives of all processes, which are not to be changed."""
        if not self._told:
            return self
        total = Metrics()
        total.processes = self.processes
        for measured, metrics in self.queues.items():
            total.of(*measured).absorb(metrics.snapshot())
        for name, job in self.jobs.items():
            total.job(name).absorb(job.snapshot())
        for source, told in self._told.items():
            for last in told.values():
                total._add(source, last)
        return total

    def _add(self, source: str, snapshot: Mapping[str, Any]) -> None:
        for queue, processor, part, numbers in snapshot["queues"]:
            self.of(queue, processor, part or source.rpartition("#")[0]).absorb(numbers)
        for name, numbers in snapshot["jobs"].items():
            self.job(name).absorb(numbers)
