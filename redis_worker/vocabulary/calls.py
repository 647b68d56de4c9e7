"""How functions of the user's can be called, as far as their signatures tell."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from redis_worker.vocabulary.errors import ConfigurationError

_COUNTS = ("nothing", "one", "two", "three", "four", "five")


def accepts(function: Callable[..., Any], given: tuple[object, ...], arguments: Mapping[str, Any]) -> bool:
    """Return whether a function can be called so; True where its signature cannot be read."""
    signature = _signature(function)
    if signature is None:
        return True
    try:
        signature.bind(*given, **arguments)
    except TypeError:
        return False
    return True


def parameters_of(function: Callable[..., Any]) -> str:
    """Return the names of the parameters of a function, in one line."""
    signature = _signature(function)
    parameters = signature.parameters.values() if signature else ()
    names = [
        str(one).partition(":")[0].partition("=")[0].strip() + " (by name)" * (one.kind is one.KEYWORD_ONLY)
        for one in parameters
    ]
    return ", ".join(names) or "nothing"


def check_takes_one(kind: str, function: Callable[..., Any], what: str) -> None:
    """See that a function can be called with one argument, which is `what`. Raises ConfigurationError."""
    if accepts(function, (None,), {}):
        return
    name, names = getattr(function, "__name__", type(function).__name__), parameters_of(function)
    count = 0 if names == "nothing" else names.count(",") + 1
    takes = _COUNTS[count] if count < len(_COUNTS) else str(count)
    raise ConfigurationError(f"a {kind} takes {what}, {name} takes {takes}" + (f": {names}" if count else ""))


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    # A decorator may take another number of arguments than the function it wraps: its own signature counts.
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
