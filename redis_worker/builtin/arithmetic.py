"""The processors `sum`, `add100` and `fibonacci`: exact arithmetic on JSON numbers.

Error texts omit the task's integers: str() refuses those above 4,300 digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from redis_worker.vocabulary.payload import json_type
from redis_worker.vocabulary.processor import processor

FIBONACCI_BOUND = 100_000


@processor(execution="inline", name="sum")
def sum_numbers(arguments: list[Any]) -> int | float:
    """Add up numbers, exactly: integers of any size, fractions rounded once at the end."""
    for argument in arguments:
        # By type: a boolean is an int to isinstance, and this comparison is the cheapest.
        if type(argument) is not int:
            return _sum_with_fractions(arguments)
    total: int = sum(arguments)
    return total


@processor(execution="inline")
def add100(arguments: list[Any]) -> int | float:
    """Add 100 to one number."""
    number = _only(arguments, "add100 takes exactly one number")
    _require_number(number, "add100 takes a number")
    total: int | float = number + 100
    return total


# Inline: a microsecond at the usual sizes, and about one millisecond at the bound. A thread would not
# free the event loop for that millisecond, because multiplying integers holds the interpreter lock.
@processor(execution="inline")
def fibonacci(arguments: list[Any]) -> int:
    """Compute the Fibonacci number F(n) of one positive integer n up to 100000; F(1) = F(2) = 1."""
    n = _only(arguments, "fibonacci takes exactly one positive integer")
    if type(n) is not int:
        got = "a number with a fraction or exponent" if type(n) is float else json_type(n)
        raise ValueError(f"fibonacci takes a positive integer, got {got}")
    if n < 1:
        raise ValueError(f"fibonacci takes a positive integer, got {'zero' if n == 0 else 'a negative one'}")
    if n > FIBONACCI_BOUND:
        raise ValueError(f"fibonacci takes a positive integer up to {FIBONACCI_BOUND}, got a greater one")
    return _fibonacci_pair(n)[0]


def _fibonacci_pair(n: int) -> tuple[int, int]:
    """Return F(n) and F(n + 1), by fast doubling: one step of recursion for each bit of n."""
    if n == 0:
        return 0, 1
    a, b = _fibonacci_pair(n >> 1)
    even, odd = a * (2 * b - a), a * a + b * b
    return (odd, even + odd) if n & 1 else (even, odd)


def _sum_with_fractions(arguments: list[Any]) -> int | float:
    """Return the sum with fractions, rounded once. Raises ValueError at the first argument that is no number."""
    for index, argument in enumerate(arguments):
        _require_number(argument, f"the item at index {index} should be a number")
    whole = sum(argument for argument in arguments if type(argument) is int)
    fractions = [argument for argument in arguments if type(argument) is float]
    try:
        return math.fsum([*_as_floats(whole), *fractions])
    except OverflowError:
        raise ValueError("the sum is too large for a number with a fraction") from None


def _as_floats(whole: int) -> Iterator[float]:
    """Yield floats that add up to exactly `whole`, so that fsum need not round it first."""
    while whole:
        part = float(whole)
        yield part
        whole -= int(part)


def _only(arguments: list[Any], rule: str) -> Any:
    if len(arguments) != 1:
        raise ValueError(f"{rule}, got {len(arguments) or 'no'} arguments")
    return arguments[0]


def _require_number(value: Any, rule: str) -> None:
    if type(value) is not int and type(value) is not float:
        raise ValueError(f"{rule}, got {json_type(value)}")
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"{rule}, got {value}, which is no JSON number")
