"""Functions that cannot be called with what they would get: told at start, where the signature shows it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from redis_worker import ConfigurationError, Handlers, WorkerPool

URL = "redis://127.0.0.1:1"


def add(a: int, b: int) -> int:
    return a + b


def nothing() -> None: ...


def named(*, a: int) -> None: ...


async def add_async(a: int, b: int, c: int) -> None: ...


class Adds:
    def __call__(self, a: int, b: int) -> int:
        return a + b

    def add(self, a: int, b: int) -> int:
        return a + b

    def sum(self, arguments: list[int]) -> int:
        return sum(arguments)


def pool(processor: Callable[..., Any], parser: Any = "list") -> WorkerPool:
    return WorkerPool(URL, "in", "out", parser, processor)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (add, "a processor takes one list of arguments, add takes two: a, b"),
        (nothing, "a processor takes one list of arguments, nothing takes nothing"),
        (named, "a processor takes one list of arguments, named takes one: a (by name)"),
        (add_async, "a processor takes one list of arguments, add_async takes three: a, b, c"),
        (Adds(), "a processor takes one list of arguments, Adds takes two: a, b"),
        (Adds().add, "a processor takes one list of arguments, add takes two: a, b"),
        (functools.partial(add, 1, 2), "a processor takes one list of arguments, partial takes nothing"),
    ],
)
def test_a_processor_takes_one_list(function: Callable[..., Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        pool(function)
    assert str(caught.value) == sentence


def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Its wrapper takes one list, whatever it wraps."""

    @functools.wraps(function)
    def call(arguments: list[Any]) -> Any:
        return function(*arguments)

    return call


@pytest.mark.parametrize(
    "function",
    [
        *(adapted(add), Adds().sum, functools.partial(add, 1), sum, max, operator.itemgetter(0), Mock()),
        *(lambda *numbers: sum(numbers), lambda numbers, start=0: sum(numbers, start), str, int, list),
    ],
    ids=lambda function: getattr(function, "__name__", type(function).__name__),  # the same in each process
)
def test_what_can_be_called_so_or_does_not_tell_is_let_through(function: Callable[..., Any]) -> None:
    """No declaration raises."""
    pool(function)
    pool(sum, parser=function)
    Handlers().handler("t")(function)


def test_parsers_and_handlers_say_what_they_take() -> None:
    for declare, sentence in (
        (lambda: pool(sum, add), "a parser takes one value, the task, add takes two: a, b"),
        (lambda: Handlers().handler("t")(add), "a handler takes one message, add takes two: a, b"),
        (lambda: Handlers().default_handler(nothing), "a handler takes one message, nothing takes nothing"),
        (lambda: Handlers().batch_handler("t")(add), "a batch handler takes one list of messages, add takes two: a, b"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            declare()
        assert str(caught.value) == sentence
