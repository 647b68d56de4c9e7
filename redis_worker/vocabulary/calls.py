"""Checks of a user function's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from redis_worker.vocabulary.errors import ConfigurationError

_COUNTS = ("nothing", "one", "two", "three", "four", "five")


def accepts(function: Callable[..., Any], positional: tuple[object, ...], named: Mapping[str, Any]) -> bool:
    """Return True if a function takes these arguments, or if its signature cannot be read."""
    signature = _signature(function)
    if signature is None:
        return True
    try:
        signature.bind(*positional, **named)
    except TypeError:
        return False
    return True


def parameters_of(function: Callable[..., Any]) -> str:
    """Return the names of a function's parameters, on one line."""
    signature = _signature(function)
    parameters = signature.parameters.values() if signature else ()
    names = [
        str(parameter).partition(":")[0].partition("=")[0].strip()
        + " (by name)" * (parameter.kind is parameter.KEYWORD_ONLY)
        for parameter in parameters
    ]
    return ", ".join(names) or "nothing"


def check_takes_one(kind: str, function: Callable[..., Any], argument: str) -> None:
    """Raise ConfigurationError unless a function takes one argument, which `argument` describes."""
    if accepts(function, (None,), {}):
        return
    name, names = getattr(function, "__name__", type(function).__name__), parameters_of(function)
    count = 0 if names == "nothing" else names.count(",") + 1
    takes = _COUNTS[count] if count < len(_COUNTS) else str(count)
    raise ConfigurationError(f"a {kind} takes {argument}, {name} takes {takes}" + (f": {names}" if count else ""))


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    # The decorator's signature counts: it may take another number of arguments than the function it wraps.
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
