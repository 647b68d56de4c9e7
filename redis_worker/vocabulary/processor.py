"""The declaration of a processor: its name, its execution, its time limit, its retries.

A processor is a callable `(list of arguments) -> JSON value`, `async` or plain. The decorator adds
a declaration and returns the function itself, so that it stays callable, testable and picklable.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, get_args, overload

from redis_worker.vocabulary.checks import check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.stage_status import STAGES, Stages

Execution = Literal["async", "inline", "thread", "process"]
"""The place of a processor's calls: a coroutine on the event loop, a plain call on it (for pure functions that take
microseconds), a thread, or a child process (for functions bound by the CPU)."""

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__redis_worker__"
_CHECK = "__redis_worker_check__"
_TIMES = {"timeout", "retry_backoff", "retry_backoff_max"}


@dataclass(frozen=True, slots=True)
class Declaration:
    """The settings of a processor."""

    name: str
    execution: Execution
    timeout: float | None = None
    """The time limit of one run, in seconds; None for no limit."""
    summary: str = ""
    retries: int = 0
    """The number of retries after a failure."""
    retry_backoff: float = 1.0
    """The delay before the first retry, in seconds; it doubles with each retry."""
    retry_backoff_max: float = 60.0
    """The maximum delay, in seconds."""
    stages: Stages | None = None
    """The counts of its stages, if it is a pipeline."""


@overload
def processor(function: F, /) -> F: ...
@overload
def processor(
    *,
    execution: Execution | None = None,
    name: str | None = None,
    timeout: Duration | None = None,
    retries: int | None = None,
    retry_backoff: Duration | None = None,
    retry_backoff_max: Duration | None = None,
) -> Callable[[F], F]: ...


def processor(
    function: F | None = None,
    /,
    *,
    execution: Execution | None = None,
    name: str | None = None,
    timeout: Duration | None = None,
    retries: int | None = None,
    retry_backoff: Duration | None = None,
    retry_backoff_max: Duration | None = None,
) -> F | Callable[[F], F]:
    """Declare a processor's execution, time limit and retries.

        @processor(execution="process", timeout=30, retries=3)
        def render(arguments): ...

    `execution` is "async" for a coroutine function (and may be left out), "inline", "thread" (the
    default of a plain function) or "process"; a time is a Duration: seconds, a timedelta, or a text as "90s".
    Raises ConfigurationError if they do not fit the function.
    """
    given = {
        "execution": execution,
        "name": name,
        "timeout": timeout,
        "retries": retries,
        "retry_backoff": retry_backoff,
        "retry_backoff_max": retry_backoff_max,
    }
    declared = {key: value for key, value in given.items() if value is not None}

    def declare(function: F) -> F:
        _declaration(function, declared)
        setattr(function, _ATTRIBUTE, declared)
        return function

    return declare if function is None else declare(function)


def declaration_of(function: Callable[..., Any], kind: str = "processor", **overrides: Any) -> Declaration:
    """Return the declaration of `function`, with the `overrides` that are not None in place of its own values.

    Raises ConfigurationError; `kind` names the function in the message.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    return _declaration(function, said_by(function) | overrides, kind)


def said_by(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of the decorator of `function`; empty if it has none."""
    return dict(getattr(function, _ATTRIBUTE, {}))


def checked_by(check: Callable[[], None]) -> Callable[[F], F]:
    """Register `check`, which validates a processor's settings; the pool calls it first."""

    def declare(function: F) -> F:
        setattr(function, _CHECK, check)
        return function

    return declare


def check_settings(function: Callable[..., Any]) -> None:
    """Call the check that `function` has registered, if any. Raises ConfigurationError."""
    if check := getattr(function, _CHECK, None):
        check()


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return True if calls of `function` must be awaited. It may be a partial, or an object with an async __call__."""
    if isinstance(function, partial):
        return is_coroutine_function(function.func)
    call = getattr(function, "__call__", None)  # noqa: B004 - see above
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _declaration(function: Callable[..., Any], declared: dict[str, Any], kind: str = "processor") -> Declaration:
    document = inspect.getdoc(function) or ""
    is_async = is_coroutine_function(function)
    defaults: dict[str, Any] = {
        "name": getattr(function, "__name__", type(function).__name__),
        "stages": getattr(function, STAGES, None),
        "execution": "async" if is_async else "thread",
        "summary": document.partition("\n")[0],
    }
    owner = f"{kind} {declared.get('name', defaults['name'])}"
    declaration = Declaration(**_checked(owner, defaults | declared))
    problem = _problem(declaration, is_async)
    if problem:
        raise ConfigurationError(f"{kind} {declaration.name}: {problem}")
    return declaration


def _checked(owner: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with times in seconds. Raises ConfigurationError if a value has the wrong type."""
    checked = dict(values)
    for key in _TIMES & values.keys():
        checked[key] = check_seconds(f"{owner}: {key}", values[key])
    if "retries" in values:
        checked["retries"] = check_whole(f"{owner}: retries", values["retries"], 0)
    return checked


def _problem(declared: Declaration, is_async: bool) -> str | None:
    """Return the error in a declaration, or None."""
    execution, timeout = declared.execution, declared.timeout
    if execution not in get_args(Execution):
        return f"unknown execution {execution!r}, use one of {', '.join(get_args(Execution))}"
    if is_async != (execution == "async"):
        if is_async:
            return f"a coroutine function cannot run as {execution}"
        return "a plain function cannot run as async"
    if timeout is not None and not timeout > 0:
        return f"the time limit must be above 0 seconds, got {timeout}"
    if timeout is not None and execution == "inline":
        return "an inline call cannot be interrupted, so it takes no time limit; use thread"
    if not 0 < declared.retry_backoff <= declared.retry_backoff_max:
        return (
            f"the retry backoff must be above 0 seconds and at most {declared.retry_backoff_max:g}, "
            f"got {declared.retry_backoff:g}"
        )
    return None
