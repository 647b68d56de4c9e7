"""How processors declare themselves."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from redis_worker import ConfigurationError, processor
from redis_worker.vocabulary.processor import declaration_of


def plain(arguments: list[Any]) -> Any:
    """Do something.

    And more.
    """


async def coroutine(arguments: list[Any]) -> Any: ...


class Callable:
    async def __call__(self, arguments: list[Any]) -> Any: ...


def test_what_says_nothing_runs_in_a_thread_or_as_the_coroutine_it_is() -> None:
    assert declaration_of(plain).execution == "thread"
    assert declaration_of(coroutine).execution == "async"
    assert declaration_of(Callable()).execution == "async"
    assert declaration_of(functools.partial(coroutine, 1)).execution == "async"
    assert declaration_of(plain).summary == "Do something."


def test_the_decorator_returns_the_function_itself() -> None:
    assert processor(plain) is plain
    assert processor(execution="process", name="named", timeout=3)(plain) is plain
    declared = declaration_of(plain)
    assert (declared.name, declared.execution, declared.timeout) == ("named", "process", 3)
    assert declaration_of(plain, execution="thread", timeout=5).timeout == 5
    del plain.__redis_worker__  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("function", "options", "sentence"),
    [
        (plain, {"execution": "async"}, "a plain function cannot run as async"),
        (coroutine, {"execution": "thread"}, "a coroutine function cannot run as thread"),
        (plain, {"execution": "fast"}, "unknown execution 'fast'"),
        (plain, {"timeout": 0}, "above 0"),
        (plain, {"execution": "inline", "timeout": 1}, "takes no time limit"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(function: Any, options: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        processor(**options)(function)
