"""Texts of rates, and the lanes of limits."""

from __future__ import annotations

from typing import Any

import pytest

from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.limit import Lane, Limit, waits_for_a_limit
from redis_worker.vocabulary.rate import Rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        *(("100/m", (100, 60_000)), ("5/s", (5, 1000)), ("1000/h", (1000, 3_600_000)), ("1/10s", (1, 10_000))),
        *(("3/1.5m", (3, 90_000)), ("40/250ms", (40, 250)), ("9/d", (9, 86_400_000)), ("2/10", (2, 10_000))),
    ],
)
def test_a_rate_is_a_number_of_starts_in_a_period(text: str, rate: tuple[int, int]) -> None:
    assert Rate.of("rate", text) == rate


@pytest.mark.parametrize(
    "value", ["", "5", "5/", "/m", "0/m", "-1/m", "1.5/m", "5/x", "5/m/s", 5, None, "5/0s", "5/1ms"]
)
def test_another_form_is_one_sentence(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^pool: rate(: the period)? must be .*, got ") as raised:
        Rate.of("pool: rate", value)
    assert "\n" not in str(raised.value)


def test_a_lane_is_known_by_its_limits() -> None:
    one, two = Lane([Limit("a", 1, 1000)]), Lane([Limit("b", 1, 1000)])
    assert one.score != two.score == Lane([Limit("b", 1, 1000)]).score
    assert waits_for_a_limit(one.score)
    assert not waits_for_a_limit(2.0**52 - 1)
    assert one.score < 2**53
    assert (one.slack, Lane([Limit("c", 2)]).slack) == (20.0, None)
    assert (one.ends, Lane([Limit("c", 2)]).ends) == (False, True)
