"""A histogram in Prometheus's form."""

from __future__ import annotations

from redis_worker.http.metrics import Histogram


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the cumulative buckets: each includes the counts of all lower ones."""
    buckets, total = [], 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
