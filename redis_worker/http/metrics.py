"""Counts and measurements of queues, in batches, and of cron jobs; independent of their presentation."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from redis_worker.engine.counters import Counting
from redis_worker.engine.histogram import PROCESSING_BOUNDS, Histogram
from redis_worker.engine.vitals import Timing, Vitals
from redis_worker.ports import Partition
from redis_worker.vocabulary.ids import new_id
from redis_worker.vocabulary.stage_status import Stages, StageStatus

OUTCOMES = ("success", "error", "dead", "retried", "skipped", "refused")
"""Outcomes of handled tasks; `refused` is a task with an unwritten result: another worker owns it."""

RUN_BOUNDS = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
ROWS_BOUNDS = (1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0)

# Retired lives of child processes that are remembered: a last snapshot may arrive late.
_REMEMBERED = 1000


class StreamMetrics:
    """Metrics of a source with partitions, and of the sink behind it."""

    def __init__(self) -> None:
        # They exist from the start: an alert on an increase needs a value before it.
        self.counts = Counter(dict.fromkeys(("assigned", "revoked", "lost", "commits", "written", "refused"), 0))
        """Rebalances by what they did, commits of offsets, and values that the sink has written or refused."""
        self.rows = Histogram(ROWS_BOUNDS)
        """Values of each write."""
        self.seconds = Histogram(PROCESSING_BOUNDS)
        """Duration of each write."""

    def snapshot(self) -> dict[str, Any]:
        """Return the counts, ready for JSON."""
        return {"counts": dict(self.counts), "rows": self.rows.snapshot(), "seconds": self.seconds.snapshot()}

    def absorb(self, snapshot: Mapping[str, Any]) -> None:
        """Add the snapshot of another process."""
        self.counts.update(snapshot["counts"])
        self.rows.absorb(snapshot["rows"])
        self.seconds.absorb(snapshot["seconds"])


class QueueMetrics(Vitals):
    """Metrics of one queue and its processor, with the times of all tasks."""

    _read, _timed = Timing._read, Timing._timed

    def __init__(self) -> None:
        super().__init__()
        self.stream: StreamMetrics | None = None
        """None for a queue in Redis."""
        self._stages: Stages = tuple
        self._absorbed: dict[str, StageStatus] = {}
        """The counts of other processes, by stage."""

    @property
    def outcomes(self) -> dict[str, int]:
        """How many tasks had each of OUTCOMES."""
        counted = self.counters
        failed = counted.failed - counted.dead
        counts = (counted.succeeded, failed, counted.dead, counted.retried, counted.skipped, counted.refused)
        return dict(zip(OUTCOMES, counts, strict=True))

    @property
    def stages(self) -> list[StageStatus]:
        """The counts of the handler's stages; none if it is no pipeline."""
        here = {each.name: each for each in self._stages()}
        return [
            each if (other := self._absorbed.get(name)) is None or each is other else each.plus(other)
            for name, each in (self._absorbed | here).items()
        ]

    def staged(self, stages: Stages) -> None:
        self._stages = stages

    def assigned(self, partitions: Collection[Partition]) -> None:  # noqa: ARG002 - the port's signature
        self._streaming().counts["assigned"] += 1

    def revoked(self, partitions: Collection[Partition], lost: bool) -> None:  # noqa: ARG002 - the port's signature
        self._streaming().counts["lost" if lost else "revoked"] += 1

    def committed(self, partitions: Collection[Partition]) -> None:  # noqa: ARG002 - the port's signature
        self._streaming().counts["commits"] += 1

    def written(self, values: int, refused: int, seconds: float) -> None:
        stream = self._streaming()
        stream.counts["written"] += values
        stream.counts["refused"] += refused
        stream.rows.add([values + refused])
        stream.seconds.add([seconds])

    def _streaming(self) -> StreamMetrics:
        self.stream = self.stream or StreamMetrics()
        return self.stream

    def snapshot(self) -> dict[str, Any]:
        """Return the counts, ready for JSON."""
        return {
            "counters": self.counters.snapshot(),
            "processing": self.processing.snapshot(),
            "latency": self.latency.snapshot(),
            "stream": None if self.stream is None else self.stream.snapshot(),
            "stages": [[*stage] for stage in self.stages],
        }

    def absorb(self, snapshot: Mapping[str, Any]) -> None:
        """Add the snapshot of another process."""
        self.counters.add(snapshot["counters"])
        self.processing.absorb(snapshot["processing"])
        self.latency.absorb(snapshot["latency"])
        if snapshot["stream"] is not None:
            self._streaming().absorb(snapshot["stream"])
        for stage in (StageStatus(*values) for values in snapshot["stages"]):
            before = self._absorbed.get(stage.name)
            self._absorbed[stage.name] = stage if before is None else before.plus(stage)


class JobMetrics:
    """Metrics of one cron job."""

    def __init__(self) -> None:
        # Outcomes that alerts watch exist from the start: an alert on an increase needs a value before it.
        self.outcomes = Counter(success=0, error=0)
        self.seconds = Histogram(RUN_BOUNDS)
        self.succeeded_at: float | None = None
        """The time of the last success, in seconds since the epoch."""

    def outcome(self, outcome: str, seconds: float = 0.0) -> None:
        """Record the end of a run, as "success" or otherwise; `seconds` is its run time, 0 if nothing ran."""
        self.outcomes[outcome] += 1
        if seconds:
            self.seconds.add([seconds])
        if outcome == "success":
            self.succeeded_at = time.time()

    def snapshot(self) -> dict[str, Any]:
        """Return the counts, ready for JSON."""
        return {
            "outcomes": dict(self.outcomes),
            "seconds": self.seconds.snapshot(),
            "succeeded_at": self.succeeded_at,
        }

    def absorb(self, snapshot: Mapping[str, Any]) -> None:
        """Add the snapshot of another process."""
        self.outcomes.update(snapshot["outcomes"])
        self.seconds.absorb(snapshot["seconds"])
        times = [at for at in (self.succeeded_at, snapshot["succeeded_at"]) if at is not None]
        self.succeeded_at = max(times, default=None)


class Measured(NamedTuple):
    """The labels of a queue's metrics."""

    queue: str
    processor: str
    part: str = ""
    """The part of a supervisor that consumes it; empty without a supervisor."""


class Metrics:
    """Metrics of all queues and cron jobs that this process, or a child of it, has worked on.

    A child sends its totals repeatedly; the last snapshot of each life counts.
    """

    def __init__(self) -> None:
        self.counting = Counting()
        """Counts of all queues together."""
        self.queues: dict[Measured, QueueMetrics] = {}
        self.jobs: dict[str, JobMetrics] = {}
        """By name."""
        self.processes: dict[str, int] = {}
        """The ids of the parts' child processes, by "part#number"."""
        self._life = new_id()
        self._snapshots: dict[str, dict[str, Mapping[str, Any]]] = {}
        """The last snapshot of each child that is not retired, by source and life."""
        self._retired: deque[str] = deque(maxlen=_REMEMBERED)
        """Lives that have ended."""

    def of(self, queue: str, processor: str, part: str = "") -> QueueMetrics:
        """Return the observer for `queue`; its counts survive a restart of a topic."""
        return self.queues.setdefault(Measured(queue, processor, part), QueueMetrics())

    def job(self, name: str) -> JobMetrics:
        """Return the metrics of the cron job `name`."""
        return self.jobs.setdefault(name, JobMetrics())

    def snapshot(self) -> dict[str, Any]:
        """Return the totals of this process and its children, ready for JSON, for the parent's `absorb`."""
        return {"life": self._life, **self.total()._numbers()}

    def _numbers(self) -> dict[str, Any]:
        return {
            "counters": self.counting.counters.snapshot(),
            "queues": [[*measured, metrics.snapshot()] for measured, metrics in self.queues.items()],
            "jobs": {name: metrics.snapshot() for name, metrics in self.jobs.items()},
        }

    def absorb(self, source: str, snapshot: Mapping[str, Any]) -> None:
        """Replace the last snapshot of a child. `source` is "part#number".

        A snapshot of a retired life is ignored.
        """
        if (life := snapshot["life"]) not in self._retired:
            self._snapshots.setdefault(source, {})[life] = snapshot

    def retire(self, source: str) -> None:
        """Add the last snapshot of a child that ended to the totals; its successor starts at zero."""
        self.processes.pop(source, None)
        for life, last in self._snapshots.pop(source, {}).items():
            self._retired.append(life)
            self._add(source, last)

    def total(self) -> Metrics:
        """Return the totals over all lives of all processes; callers must not modify them."""
        if not self._snapshots:
            return self
        total = Metrics()
        total.processes = self.processes
        total.counting.counters.started_at = self.counting.counters.started_at
        total._add("", self._numbers())
        for source, lives in self._snapshots.items():
            for last in lives.values():
                total._add(source, last)
        return total

    def _add(self, source: str, snapshot: Mapping[str, Any]) -> None:
        self.counting.counters.add(snapshot["counters"])
        for queue, processor, part, numbers in snapshot["queues"]:
            self.of(queue, processor, part or source.rpartition("#")[0]).absorb(numbers)
        for name, numbers in snapshot["jobs"].items():
            self.job(name).absorb(numbers)
