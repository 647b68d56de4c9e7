"""The built-in parsers and arithmetic, through the callables the worker calls."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_worker.builtin.arithmetic import FIBONACCI_BOUND, add100, fibonacci, sum_numbers
from redis_worker.registry import find_parser
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.processor import declaration_of

HUGE = 10**5000  # str() refuses it

VALUES: list[tuple[Any, str]] = [
    (None, "null"),
    (True, "a boolean"),
    (7, "a number"),
    (1.5, "a number"),
    ("7", "a string"),
    ([1, 2], "a list"),
    ({"a": 1}, "an object"),
]


def refusal(function: Any, argument: Any) -> str:
    with pytest.raises(ValueError) as caught:
        function(argument)
    return str(caught.value)


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_each_parser_takes_its_own_kind_and_names_any_other(value: Any, kind: str) -> None:
    assert find_parser("any")(value) == [value]
    if kind == "a list":
        assert find_parser("list")(value) is value
    else:
        assert refusal(find_parser("list"), value) == f"task should be a list, got {kind}"
    if kind == "a number":
        assert find_parser("number")(value) == [value]
    else:
        assert refusal(find_parser("number"), value) == f"task should be a number, got {kind}"


@pytest.mark.parametrize(
    ("function", "name", "execution"),
    [(sum_numbers, "sum", "inline"), (add100, "add100", "inline"), (fibonacci, "fibonacci", "inline")],
)
def test_processors_declare_themselves(function: Any, name: str, execution: str) -> None:
    declaration = declaration_of(function)
    assert (declaration.name, declaration.execution) == (name, execution)
    assert declaration.summary.endswith(".")


# sum


@settings(deadline=None)
@given(st.lists(st.integers()))
def test_sum_of_integers_is_the_integer(numbers: list[int]) -> None:
    expected = 0
    for number in numbers:
        expected += number
    result = sum_numbers(numbers)
    assert result == expected
    assert type(result) is int


floats = st.floats(-1e200, 1e200, allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(st.integers(-(10**40), 10**40) | floats), floats)
def test_sum_with_fractions_is_the_exact_sum_rounded_once(numbers: list[int | float], one: float) -> None:
    result = sum_numbers([*numbers, one])
    assert result == float(sum(map(Fraction, numbers), Fraction(one)))
    assert type(result) is float


def test_sum_is_exact_where_floats_and_machine_integers_are_not() -> None:
    assert sum_numbers([]) == 0
    assert sum_numbers([2**63, 2**63, 1]) == 2**64 + 1
    assert sum_numbers([HUGE, 1, -HUGE]) == 1
    assert sum_numbers([HUGE, 0.5, -HUGE]) == 0.5
    assert sum_numbers([0.1] * 10) == 1.0
    assert sum_numbers([2**53, 1, 0.5, -(2**53)]) == 1.5


@pytest.mark.parametrize(("value", "kind"), [pair for pair in VALUES if pair[1] != "a number"])
def test_sum_names_the_item_that_is_no_number(value: Any, kind: str) -> None:
    assert refusal(sum_numbers, [1, 2.5, value]) == f"the item at index 2 should be a number, got {kind}"


def test_sum_refuses_what_json_cannot_hold() -> None:
    assert "index 1 should be a number, got inf" in refusal(sum_numbers, [1, math.inf])
    assert "index 0 should be a number, got nan" in refusal(sum_numbers, [math.nan])
    too_large = "the sum is too large for a number with a fraction"
    assert refusal(sum_numbers, [1e308, 1e308]) == too_large
    assert refusal(sum_numbers, [HUGE, 0.5]) == too_large


# add100


@pytest.mark.parametrize(("number", "expected"), [(1, 101), (-100, 0), (1.5, 101.5), (2**64, 2**64 + 100)])
def test_add100(number: int | float, expected: int | float) -> None:
    result = add100([number])
    assert (result, type(result)) == (expected, type(expected))


def test_add100_takes_exactly_one_number() -> None:
    assert add100([HUGE]) == HUGE + 100
    assert refusal(add100, []) == "add100 takes exactly one number, got no arguments"
    assert refusal(add100, [1, 2]) == "add100 takes exactly one number, got 2 arguments"
    assert refusal(add100, [True]) == "add100 takes a number, got a boolean"
    assert refusal(add100, ["1"]) == "add100 takes a number, got a string"
    assert refusal(add100, [math.inf]) == "add100 takes a number, got inf, which is no JSON number"


# fibonacci


def iterative_fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


@settings(deadline=None)
@given(st.integers(1, 3000))
def test_fibonacci_is_the_sum_of_the_two_before(n: int) -> None:
    assert fibonacci([n]) == iterative_fibonacci(n)


def test_fibonacci_from_the_first_to_the_bound() -> None:
    assert [fibonacci([n]) for n in range(1, 11)] == [1, 1, 2, 3, 5, 8, 13, 21, 34, 55]
    assert fibonacci([30]) == 832040
    assert fibonacci([FIBONACCI_BOUND]) == iterative_fibonacci(FIBONACCI_BOUND)
    assert len(dumps(fibonacci([FIBONACCI_BOUND]))) == 20899


def short(value: Any) -> str | None:
    """pytest names a case after its values, with str(), which refuses HUGE."""
    return f"{value.bit_length()} bits" if type(value) is int else None


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (0, "fibonacci takes a positive integer, got zero"),
        (-1, "fibonacci takes a positive integer, got a negative one"),
        (-HUGE, "fibonacci takes a positive integer, got a negative one"),
        (FIBONACCI_BOUND + 1, "fibonacci takes a positive integer up to 100000, got a greater one"),
        (HUGE, "fibonacci takes a positive integer up to 100000, got a greater one"),
        (True, "fibonacci takes a positive integer, got a boolean"),
        (3.0, "fibonacci takes a positive integer, got a number with a fraction or exponent"),
        ("3", "fibonacci takes a positive integer, got a string"),
        (None, "fibonacci takes a positive integer, got null"),
        ([3], "fibonacci takes a positive integer, got a list"),
    ],
    ids=short,
)
def test_fibonacci_refuses(argument: Any, text: str) -> None:
    assert refusal(fibonacci, [argument]) == text


def test_fibonacci_takes_exactly_one_argument() -> None:
    assert refusal(fibonacci, []) == "fibonacci takes exactly one positive integer, got no arguments"
    assert refusal(fibonacci, [1, 2]) == "fibonacci takes exactly one positive integer, got 2 arguments"
