"""Type-checked access to JSON objects from Redis, which any program may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text(members: Mapping[str, Any], name: str) -> str:
    """Return the text `name`. Raises KeyError, TypeError."""
    return str(_checked(members[name], str))


def text_or_none(members: Mapping[str, Any], name: str) -> str | None:
    """Return the text `name`, or None. Raises KeyError, TypeError."""
    return None if members[name] is None else text(members, name)


def whole(members: Mapping[str, Any], name: str) -> int:
    """Return the integer `name`. Raises KeyError, TypeError."""
    return int(_checked(members[name], int))


def whole_or_none(members: Mapping[str, Any], name: str) -> int | None:
    """Return the integer `name`, or None. Raises KeyError, TypeError."""
    return None if members[name] is None else whole(members, name)


def number(members: Mapping[str, Any], name: str) -> float:
    """Return the number `name`. Raises KeyError, TypeError."""
    value: float = _checked(members[name], int, float)
    return value


def _checked(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:  # not isinstance: bool is a subclass of int
        raise TypeError(f"{value!r} is none of {kinds}")
    return value
