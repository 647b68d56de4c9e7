"""Times of a consumer's tasks, and its vitals, for those who look at the fleet: the reasons of failures too."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from redis_worker.engine.counters import Counting
from redis_worker.engine.histogram import LATENCY_BOUNDS, PROCESSING_BOUNDS, Histogram
from redis_worker.vocabulary.stamps import made_at
from redis_worker.vocabulary.task import Delivery, Outcome

# Longer tasks are not read, in bytes.
_LONGEST = 8192
# Reasons remembered, and characters of one.
_MOST_REASONS, _MOST_CHARACTERS = 12, 200
# Parts of a reason that differ from task to task.
_NUMBERS = re.compile(r"\b0x[0-9a-fA-F]+|\d+")


class Timing(Counting):
    """Counters, and the times of tasks: of their run, and from their creation to their first claim."""

    _read = 10
    """Tasks per claim that are read for their time of creation: reading all would double the parsing."""
    _timed: int | None = None
    """Tasks of a settled batch that are timed; None for all."""

    def __init__(self) -> None:
        super().__init__()
        self.processing = Histogram(PROCESSING_BOUNDS)
        self.latency = Histogram(LATENCY_BOUNDS)

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        super().claimed(deliveries)
        waited = []
        for delivery in deliveries[:: len(deliveries) // self._read + 1]:
            if delivery.attempt == 1 and len(delivery.raw) <= _LONGEST and (made := made_at(delivery.raw)) is not None:
                waited.append(max(0.0, time.time() - made))
        self.latency.add(waited)

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        super().settled(outcomes)
        some = outcomes if self._timed is None else outcomes[:: len(outcomes) // self._timed + 1]
        # Tasks that never ran took exactly 0.
        self.processing.add([outcome.seconds for outcome in some if outcome.seconds])


class Vitals(Timing):
    """Counters, samples of times, and counts of failures by their reasons; numbers in a reason show as `N`."""

    # Every worker pays for these samples.
    _read = 1
    _timed: int | None = 8

    def __init__(self) -> None:
        super().__init__()
        self._reasons: dict[str, tuple[int, float]] = {}
        """Count and last time of each reason, the least recent first."""

    def failure(self, outcome: Outcome) -> None:
        reason = _NUMBERS.sub("N", (outcome.error or "")[:_MOST_CHARACTERS].partition("\n")[0])
        count, _ = self._reasons.pop(reason, (0, 0.0))
        self._reasons[reason] = count + 1, time.time()
        if len(self._reasons) > _MOST_REASONS:
            del self._reasons[next(iter(self._reasons))]

    def sampled(self) -> dict[str, Any]:
        """Return counts by bounds, and failures as reason, count and time of the last, ready for JSON."""
        return {
            "processing": self.processing.counts,
            "latency": self.latency.counts,
            "failures": [[reason, count, round(at, 3)] for reason, (count, at) in self._reasons.items()],
        }
