"""A histogram as Prometheus has it."""

from __future__ import annotations

from redis_worker.http.metrics import Histogram


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket all that is in those before."""
    buckets, total = [], 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
