"""What is counted and measured of each queue, by the batch; nothing here knows how it is shown."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter

from redis_worker.ports import Observer
from redis_worker.vocabulary.stamps import made_at
from redis_worker.vocabulary.task import Delivery, Outcome, but_successes

OUTCOMES = ("success", "error", "dead", "retried", "skipped", "refused")
"""What can become of a task that was handled; `refused` is one whose result was not written: it was done elsewhere."""

PROCESSING_BOUNDS = (
    *(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
LATENCY_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

# Of each claim so many tasks at the most are read for when they were made: reading all would double the parsing.
_SAMPLES = 10
# And none that is longer, in bytes.
_LONGEST = 8192
_DEATHS = itemgetter(Delivery._fields.index("deaths"))


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


class QueueMetrics(Observer):
    """Of one queue and its processor."""

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.redeliveries = 0
        self.recovered_tasks = 0
        self.processing = Histogram(PROCESSING_BOUNDS)
        self.latency = Histogram(LATENCY_BOUNDS)

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        now, waited = time.time(), []
        for delivery in deliveries[:: len(deliveries) // _SAMPLES + 1]:
            if delivery.attempt > 1 or len(delivery.raw) > _LONGEST:
                continue
            if (made := made_at(delivery.raw)) is not None:
                waited.append(max(0.0, now - made))
        self.latency.add(waited)
        if any(map(_DEATHS, deliveries)):  # seldom, and without a step of the interpreter for each task
            self.redeliveries += sum(delivery.deaths > 0 for delivery in deliveries)

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        # By position, which takes half the time: 5 is `seconds`.
        self.processing.add([outcome[5] for outcome in outcomes if outcome[5]])  # what was never run took exactly none
        others = but_successes(outcomes)
        for outcome in others:
            self.outcomes[_verdict(outcome)] += 1
        self.outcomes["success"] += len(outcomes) - len(others)

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes["refused"] += len(outcomes)

    def recovered(self, worker: str, count: int) -> None:  # noqa: ARG002 - the port's signature
        self.recovered_tasks += count


def _verdict(outcome: Outcome) -> str:
    """Which of OUTCOMES it is, when it is no success."""
    if outcome.skipped:
        return "skipped"
    if outcome.again is not None:
        return "retried"
    return "dead" if outcome.dead else "error"


class Metrics:
    """Of every queue that this process has worked on."""

    def __init__(self) -> None:
        self.queues: dict[tuple[str, str], QueueMetrics] = {}
        """By queue and processor."""

    def of(self, queue: str, processor: str) -> QueueMetrics:
        """The observer for `queue`; it goes on counting when a topic is stopped and started again."""
        return self.queues.setdefault((queue, processor), QueueMetrics())
