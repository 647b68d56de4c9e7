"""The options of handlers' decorators, stored on the functions, so that a file that names one inherits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redis_worker.vocabulary.errors import ConfigurationError

_ATTRIBUTE = "__redis_worker_topics__"


@dataclass(frozen=True, slots=True)
class Declared:
    """The options that a decorator declares for a function."""

    batch: bool
    """True if the function receives lists of messages."""
    options: Mapping[str, Any]
    """The explicit options, without defaults."""


def note(function: Callable[..., Any], pattern: str, declared: Declared) -> None:
    """Store on `function` the options that a decorator declares for `pattern`."""
    try:
        setattr(function, _ATTRIBUTE, {**_noted(function), pattern: declared})
    except (AttributeError, TypeError):
        pass  # a bound method or a builtin: a file cannot name it with its decorator


def inheriting(function: Callable[..., Any], pattern: str, in_file: Declared) -> Declared:
    """Return the options of a file for `function` and `pattern`, completed by its decorator's.

    The decorator for the same pattern takes precedence; otherwise all decorators must agree. Raises ConfigurationError
    if they differ, or if the file makes a batch handler of a function that takes a single message.
    """
    noted = _noted(function)
    if not noted:
        return in_file
    found = noted.get(pattern) or _agreed(noted)
    if in_file.batch and not found.batch:
        raise ConfigurationError("the handler is declared to take one message, not a batch")
    return Declared(found.batch, {**found.options, **in_file.options})


def _agreed(noted: Mapping[str, Declared]) -> Declared:
    first, *rest = noted.values()
    if any(declared != first for declared in rest):
        raise ConfigurationError(
            f"the handler is declared differently for {', '.join(noted)}; declare it for this topic as well"
        )
    return first


def _noted(function: Callable[..., Any]) -> dict[str, Declared]:
    return getattr(function, _ATTRIBUTE, {})
