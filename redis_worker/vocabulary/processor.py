"""How a processor declares itself: its name, how it runs, its time limit.

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

Execution = Literal["async", "inline", "thread", "process"]
"""Where a processor runs: as a coroutine on the event loop, as a plain call on it (for what is pure
and takes microseconds), in a thread, or in a process of its own (for what is bound by the CPU)."""

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__redis_worker__"
_CHECK = "__redis_worker_check__"
_TIMES = {"timeout", "retry_backoff", "retry_backoff_max"}


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a processor says of itself."""

    name: str
    execution: Execution
    timeout: float | None = None
    """The time limit of one run, in seconds; None for no limit."""
    summary: str = ""
    retries: int = 0
    """How often a task that failed is tried again."""
    retry_backoff: float = 1.0
    """The first delay before that, in seconds; each one after is twice as long."""
    retry_backoff_max: float = 60.0
    """The longest delay, in seconds."""


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
    """Declare how a processor runs, and what to do when it fails.

        @processor(execution="process", timeout=30, retries=3)
        def render(arguments): ...

    `execution` is "async" for a coroutine function (and may be left out), "inline", "thread" (the
    default of a plain function) or "process"; a time is a Duration: seconds, a timedelta, or a text as "90s".
    Raises ConfigurationError where they do not fit the function.
    """
    given = {
        "execution": execution,
        "name": name,
        "timeout": timeout,
        "retries": retries,
        "retry_backoff": retry_backoff,
        "retry_backoff_max": retry_backoff_max,
    }
    said = {key: value for key, value in given.items() if value is not None}

    def declare(function: F) -> F:
        _declaration(function, said)
        setattr(function, _ATTRIBUTE, said)
        return function

    return declare if function is None else declare(function)


def declaration_of(function: Callable[..., Any], kind: str = "processor", **overrides: Any) -> Declaration:
    """The declaration of `function`, with what the caller says, where it is not None, in place of its own.

    Raises ConfigurationError, in which the function is called what `kind` says.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    return _declaration(function, said_by(function) | overrides, kind)


def said_by(function: Callable[..., Any]) -> dict[str, Any]:
    """What the decorator of `function`, if it has one, says of it."""
    return dict(getattr(function, _ATTRIBUTE, {}))


def checked_by(check: Callable[[], None]) -> Callable[[F], F]:
    """Have a processor's pool call `check`, which looks at the processor's settings, before anything else."""

    def declare(function: F) -> F:
        setattr(function, _CHECK, check)
        return function

    return declare


def check_settings(function: Callable[..., Any]) -> None:
    """Call what `function` is checked by, if anything. Raises ConfigurationError."""
    if check := getattr(function, _CHECK, None):
        check()


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether a call of `function` is to be awaited. It may be an object with an async __call__, or a partial."""
    if isinstance(function, partial):
        return is_coroutine_function(function.func)
    call = getattr(function, "__call__", None)  # noqa: B004 - see above
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _declaration(function: Callable[..., Any], said: dict[str, Any], kind: str = "processor") -> Declaration:
    document = inspect.getdoc(function) or ""
    is_async = is_coroutine_function(function)
    defaults: dict[str, Any] = {
        "name": getattr(function, "__name__", type(function).__name__),
        "execution": "async" if is_async else "thread",
        "summary": document.partition("\n")[0],
    }
    declared = Declaration(**_checked(f"{kind} {said.get('name', defaults['name'])}", defaults | said))
    problem = _problem(declared, is_async)
    if problem:
        raise ConfigurationError(f"{kind} {declared.name}: {problem}")
    return declared


def _checked(whose: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return `said` with its times in seconds. Raises ConfigurationError where a value has the wrong type."""
    found = dict(said)
    for key in _TIMES & said.keys():
        found[key] = check_seconds(f"{whose}: {key}", said[key])
    if "retries" in said:
        found["retries"] = check_whole(f"{whose}: retries", said["retries"], 0)
    return found


def _problem(declared: Declaration, is_async: bool) -> str | None:
    """What is wrong with a declaration."""
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
