"""Trends: numbers of the last minutes, from one reading of the status to the next."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from redis_worker.broker.operator.status import Status
from redis_worker.broker.operator.worker_status import WorkerStatus
from redis_worker.engine.histogram import LATENCY_BOUNDS, PROCESSING_BOUNDS

POINTS: Final = 900
"""Points that are kept."""
EVERY: Final = 1.0
"""The interval of points, in seconds."""
NAMES: Final = ("at", "rate", "failed", "waiting", "in_flight", "delayed", "p50", "p95", "p99", "latency")
"""The values of a point: rates per second, numbers of tasks, percentiles of run times and the 95th of the time from
creation to the first claim, in seconds; None where nothing is known."""
QUANTILES: Final = (0.5, 0.95, 0.99)

# The span of percentiles and failure rates, in seconds, and the interval of its readings.
_SPAN, _STEP = 60.0, 5.0

_Counts = dict[str, tuple[str, list[int], list[int], int]]
"""By worker: its queue, counts of run times and latencies, and failures."""


class Trends:
    """The history of the fleet, as far back as this process has looked."""

    def __init__(self) -> None:
        self.points: deque[list[float | None]] = deque(maxlen=POINTS)
        self._readings: deque[tuple[float, _Counts]] = deque()

    def add(self, status: Status) -> dict[str, Any]:
        """Add a reading. Returns the current numbers: of the fleet, by the names in NAMES, and `times` by queue."""
        now, counts = status.at, {worker.name: _counts(worker) for worker in status.workers}
        if not self._readings or now - self._readings[-1][0] >= _STEP or now < self._readings[-1][0]:
            self._readings.append((now, counts))
        while len(self._readings) > 1 and now - self._readings[1][0] >= _SPAN:
            self._readings.popleft()
        then, earlier = self._readings[0]
        times, failed = _grown(counts, earlier)
        every = [sum(column) for column in zip(*(of for of, _ in times.values()), strict=True)]
        waits = [sum(column) for column in zip(*(of for _, of in times.values()), strict=True)]
        queues = status.queues
        numbers = (
            round(now, 3),
            round(sum(queue.rate for queue in queues), 1),
            round(failed / max(now - then, _STEP), 2),
            *(sum(getattr(queue, name) for queue in queues) for name in ("waiting", "in_flight", "delayed")),
            *percentiles(every, PROCESSING_BOUNDS, QUANTILES),
            *percentiles(waits, LATENCY_BOUNDS, (0.95,)),
        )
        if not self.points or now - (self.points[-1][0] or 0.0) >= EVERY * 0.9:
            self.points.append(list(numbers))
        shown = {
            queue: [
                *percentiles(of, PROCESSING_BOUNDS, QUANTILES),
                *percentiles(waited, LATENCY_BOUNDS, (0.95,)),
            ]
            for queue, (of, waited) in times.items()
        }
        return {**dict(zip(NAMES, numbers, strict=True)), "times": shown}


def percentiles(counts: Sequence[int], bounds: Sequence[float], quantiles: Sequence[float]) -> list[float | None]:
    """Return estimates of `quantiles` from counts by bounds, as Prometheus makes them; None without any count."""
    total, sums = sum(counts), list(accumulate(counts))
    if not total:
        return [None for _ in quantiles]
    found = list[float | None]()
    for quantile in quantiles:
        rank = quantile * total
        at = next(index for index, below in enumerate(sums) if below >= rank)
        if at == len(bounds):
            found.append(bounds[-1])
            continue
        start = bounds[at - 1] if at else 0.0
        before = sums[at - 1] if at else 0
        found.append(round(start + (bounds[at] - start) * (rank - before) / counts[at], 6))
    return found


def _counts(worker: WorkerStatus) -> tuple[str, list[int], list[int], int]:
    return worker.queue, worker.processing, worker.latency, worker.counters.get("failed", 0)


def _grown(now: _Counts, earlier: _Counts) -> tuple[dict[str, tuple[list[int], list[int]]], int]:
    """Return the counts of run times and latencies by queue, and the failures, since `earlier`."""
    times: defaultdict[str, tuple[list[int], list[int]]] = defaultdict(
        lambda: ([0] * (len(PROCESSING_BOUNDS) + 1), [0] * (len(LATENCY_BOUNDS) + 1))
    )
    failed = 0
    for name, (queue, *counts, failures) in now.items():
        _, *before, failures_before = earlier.get(name, (queue, [], [], 0))
        failed += max(0, failures - failures_before)
        for totals, new, old in zip(times[queue], counts, before, strict=True):
            for index, count in enumerate(new):
                totals[index] += max(0, count - (old[index] if index < len(old) else 0))
    return times, failed
