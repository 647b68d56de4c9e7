"""Handlers' decorators remembered on their functions, so that a file that names a function inherits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redis_worker.vocabulary.errors import ConfigurationError

_ATTRIBUTE = "__redis_worker_topics__"


@dataclass(frozen=True, slots=True)
class Declared:
    """A decorator's words on one function."""

    batch: bool
    """Whether it is called with many messages at once."""
    options: Mapping[str, Any]
    """The options that were given; defaults are not among them."""


def note(function: Callable[..., Any], pattern: str, declared: Declared) -> None:
    """Remember what a decorator declares of `function` for `pattern`."""
    try:
        setattr(function, _ATTRIBUTE, {**_noted(function), pattern: declared})
    except (AttributeError, TypeError):
        pass  # a bound method or a builtin: no file names it by its decorator


def inheriting(function: Callable[..., Any], pattern: str, said: Declared) -> Declared:
    """Return what a file says of `function` for `pattern`, with what its decorator declares beneath.

    A decorator for the same pattern counts first, or else all of them, if they agree. Raises ConfigurationError where
    they do not, and where the file has a batch handler made of one that takes a single message.
    """
    noted = _noted(function)
    if not noted:
        return said
    found = noted.get(pattern) or _agreed(noted)
    if said.batch and not found.batch:
        raise ConfigurationError("the handler is declared to take one message, so that it takes no batch")
    return Declared(found.batch, {**found.options, **said.options})


def _agreed(noted: Mapping[str, Declared]) -> Declared:
    first, *others = noted.values()
    if any(other != first for other in others):
        raise ConfigurationError(
            f"the handler is declared differently for {', '.join(noted)}; declare it for this topic as well"
        )
    return first


def _noted(function: Callable[..., Any]) -> dict[str, Declared]:
    return getattr(function, _ATTRIBUTE, {})
