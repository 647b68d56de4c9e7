"""JSON in and out, exactly."""

from __future__ import annotations

import datetime
import json
import math
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_worker.vocabulary.long_integers import integer_text, parse_integer
from redis_worker.vocabulary.payload import dumps, failure, loads, success

exact_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(exact_json)
def test_what_goes_out_comes_back_the_same(value: Any) -> None:
    assert loads(dumps(value)) == value


@given(exact_json)
def test_every_json_of_another_program_is_read_as_it_reads_it(value: Any) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert loads(raw) == json.loads(raw)


@given(st.integers(min_value=-(2**80), max_value=2**80))
def test_integers_around_64_bits_stay_integers(number: int) -> None:
    value = loads(b'{"a":[%d]}' % number)["a"][0]
    assert (value, type(value)) == (number, int)
    assert dumps([number]) == b"[%d]" % number


@given(st.integers(min_value=3_000, max_value=20_000), st.sampled_from("123456789"), st.booleans())
def test_integers_of_any_length_are_read_and_written_digit_by_digit(length: int, digit: str, negative: bool) -> None:
    digits = ("-" if negative else "") + digit * length
    number = parse_integer(digits)
    assert number == (-1 if negative else 1) * int(digit) * (10**length - 1) // 9
    assert integer_text(number) == digits
    assert dumps({"n": number}) == b'{"n":%b}' % digits.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, math.nan], {"a": {"b": math.inf}}, (math.nan,)])
def test_nan_and_infinities_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no JSON number"):
        dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"bytes",
        object(),
        {1: 2},
        {None: 1},
        {(1,): 2},
        datetime.datetime.now(),
        1j,
        "\ud800",
        [None, {1: 2**70}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps(value)


@pytest.mark.parametrize(
    "raw", [b"NaN", b"[Infinity]", b"1e400", b"12345678901234567890e999", b'{"a":1,}', b"\xff", b""]
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        loads(raw)


def test_a_long_integer_hides_no_nan() -> None:
    with pytest.raises(ValueError):
        loads(b"[12345678901234567890, NaN]")


def test_too_deep_is_refused_in_both_directions() -> None:
    with pytest.raises(ValueError):
        loads(b"[" * 100_000 + b"12345678901234567890" + b"]" * 100_000)
    value: Any = None
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError):
        dumps(value)


def test_results_are_compact_with_the_status_first() -> None:
    assert success({"a": [1, None]}) == b'{"status":"success","result":{"a":[1,null]}}'
    assert failure('no "x"\n') == b'{"status":"error","error":"no \\"x\\"\\n"}'
    assert json.loads(failure("half a \ud83e pair"))["error"] == "half a \\ud83e pair"


@pytest.mark.parametrize("write", [dumps, success], ids=["dumps", "success"])
@pytest.mark.parametrize("value", [7, "text", [1, None], {"a": 1.5}], ids=["integer", "text", "null", "object"])
def test_texts_take_no_more_memory_than_they_need(write: Callable[[Any], bytes], value: Any) -> None:
    """Thousands are held at once; orjson alone leaves each in a buffer of a kilobyte or more."""
    tracemalloc.start()
    try:
        texts = [write(value) for _ in range(1000)]
        used, needed = tracemalloc.get_traced_memory()[0], sum(map(sys.getsizeof, texts))
    finally:
        tracemalloc.stop()
    assert used < 2 * needed
