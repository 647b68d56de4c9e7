"""Histograms of times."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

PROCESSING_BOUNDS = (
    *(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
LATENCY_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bounds of run times, and of the times from a task's creation to its first claim, in seconds."""


class Histogram:
    """Counts of values up to each of `bounds`, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values above the previous bound and up to this one; the last count is of values above all bounds."""
        self.sum = 0.0

    def add(self, values: Sequence[float]) -> None:
        if not values:
            return
        self.sum += sum(values)
        bounds, counts = self.bounds, self.counts
        first, last = bisect_left(bounds, min(values)), bisect_left(bounds, max(values))
        if first == last:  # often: a batch takes similar times
            counts[first] += len(values)
            return
        for value in values:
            counts[bisect_left(bounds, value)] += 1

    def cumulative(self) -> list[tuple[str, float]]:
        """Return bounds and counts in Prometheus's form: each count includes those of all lower bounds."""
        return list(zip((*map(str, self.bounds), "+Inf"), map(float, accumulate(self.counts)), strict=True))

    def snapshot(self) -> dict[str, Any]:
        """Return the counts and the sum, ready for JSON."""
        return {"counts": list(self.counts), "sum": self.sum}

    def absorb(self, snapshot: Mapping[str, Any]) -> None:
        """Add the snapshot of a histogram with the same bounds."""
        self.counts = [mine + other for mine, other in zip(self.counts, snapshot["counts"], strict=True)]
        self.sum += snapshot["sum"]
