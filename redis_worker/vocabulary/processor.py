"""How a processor declares itself: its name, how it runs, its time limit.

A processor is a callable `(list of arguments) -> JSON value`, `async` or plain. The decorator adds
a declaration and returns the function itself, so that it stays callable, testable and picklable.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, overload

from redis_worker.vocabulary.errors import ConfigurationError

Execution = Literal["async", "inline", "thread", "process"]
"""Where a processor runs: as a coroutine on the event loop, as a plain call on it (for what is pure
and takes microseconds), in a thread, or in a process of its own (for what is bound by the CPU)."""

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__redis_worker__"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a processor says of itself."""

    name: str
    execution: Execution
    timeout: float | None = None
    """The time limit of one run, in seconds; None for no limit."""
    summary: str = ""


@overload
def processor(function: F, /) -> F: ...
@overload
def processor(
    *, execution: Execution | None = None, name: str | None = None, timeout: float | None = None
) -> Callable[[F], F]: ...


def processor(
    function: F | None = None,
    /,
    *,
    execution: Execution | None = None,
    name: str | None = None,
    timeout: float | None = None,
) -> F | Callable[[F], F]:
    """Declare how a processor runs.

        @processor(execution="process", timeout=30)
        def render(arguments): ...

    `execution` is "async" for a coroutine function (and may be left out), "inline", "thread" (the
    default of a plain function) or "process"; `timeout` is in seconds. Raises ConfigurationError
    where the two do not fit the function.
    """

    def declare(function: F) -> F:
        setattr(function, _ATTRIBUTE, _declaration(function, execution, name, timeout))
        return function

    return declare if function is None else declare(function)


def declaration_of(
    function: Callable[..., Any], execution: Execution | None = None, timeout: float | None = None
) -> Declaration:
    """The declaration of `function`, with what the caller says in place of what it says itself."""
    declared = getattr(function, _ATTRIBUTE, None)
    if not isinstance(declared, Declaration):
        return _declaration(function, execution, None, timeout)
    execution = execution or declared.execution
    timeout = declared.timeout if timeout is None else timeout
    return _declaration(function, execution, declared.name, timeout)


def _declaration(
    function: Callable[..., Any], execution: Execution | None, name: str | None, timeout: float | None
) -> Declaration:
    name = name or str(getattr(function, "__name__", type(function).__name__))
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object may have an async __call__
    )
    execution = execution or ("async" if is_async else "thread")
    if execution not in get_args(Execution):
        raise ConfigurationError(
            f"processor {name}: unknown execution {execution!r}, use one of {', '.join(get_args(Execution))}"
        )
    if is_async != (execution == "async"):
        kind = f"a coroutine function cannot run as {execution}" if is_async else "a plain function cannot run as async"
        raise ConfigurationError(f"processor {name}: {kind}")
    if timeout is not None and timeout <= 0:
        raise ConfigurationError(f"processor {name}: the time limit must be above 0 seconds, got {timeout}")
    if timeout is not None and execution == "inline":
        raise ConfigurationError(
            f"processor {name}: an inline call cannot be interrupted, so it takes no time limit; use thread"
        )
    document = inspect.getdoc(function) or ""
    return Declaration(name, execution, timeout, document.partition("\n")[0])
