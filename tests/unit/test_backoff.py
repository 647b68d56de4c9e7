"""The pause after a failure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redis_worker.engine.retry import backoff


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(0, 10_000))
def test_it_doubles_up_to_the_longest_and_half_of_it_is_jitter(first: float, longest: float, before: int) -> None:
    whole = min(longest, first * 2.0 ** min(before, 1000))
    assert whole / 2 <= backoff(first, longest, before) <= whole


def test_what_failed_together_is_not_retried_together() -> None:
    found = [backoff(1.0, 60.0, 3) for _ in range(1000)]
    assert len(set(found)) > 900
    # The jitter fills its half.
    assert min(found) < 4.2
    assert max(found) > 7.8
