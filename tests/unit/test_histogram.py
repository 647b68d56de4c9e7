"""Histograms: a bucket holds the values up to its bound, this one included, whatever they come with."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_worker.http.metrics import PROCESSING_BOUNDS, Histogram

BOUNDS = (0.1, 0.5, 1.0)


def test_each_value_is_in_the_buckets_from_its_bound_on() -> None:
    histogram = Histogram(BOUNDS)
    for values in ([0.1], [0.1, 0.2], [0.5, 0.5], [0.6, 7.0], [0.05]):
        histogram.add(values)
    assert histogram.cumulative() == [("0.1", 3.0), ("0.5", 6.0), ("1.0", 7.0), ("+Inf", 8.0)]
    assert histogram.sum == pytest.approx(9.05)


values = st.lists(st.sampled_from(PROCESSING_BOUNDS) | st.floats(0, 1000))


@given(st.lists(values))
def test_batches_of_values_are_counted_one_by_one(batches: list[list[float]]) -> None:
    histogram = Histogram(PROCESSING_BOUNDS)
    for batch in batches:
        histogram.add(batch)
    expected = Counter(bisect_left(PROCESSING_BOUNDS, value) for batch in batches for value in batch)
    assert {place: count for place, count in enumerate(histogram.counts) if count} == expected
    whole = Histogram(PROCESSING_BOUNDS)
    whole.absorb(histogram.snapshot())
    assert whole.cumulative() == histogram.cumulative()
