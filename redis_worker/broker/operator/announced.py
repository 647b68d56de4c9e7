"""Members of what others have written to Redis, checked: anybody may have written anything there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text(said: Mapping[str, Any], name: str) -> str:
    """The text `name`. Raises KeyError, TypeError."""
    return str(_checked(said[name], str))


def text_or_none(said: Mapping[str, Any], name: str) -> str | None:
    """The text `name`, or None. Raises KeyError, TypeError."""
    return None if said[name] is None else text(said, name)


def whole(said: Mapping[str, Any], name: str) -> int:
    """The integer `name`. Raises KeyError, TypeError."""
    return int(_checked(said[name], int))


def number(said: Mapping[str, Any], name: str) -> float:
    """The number `name`. Raises KeyError, TypeError."""
    value: float = _checked(said[name], int, float)
    return value


def _checked(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:  # a boolean is an int, and no number
        raise TypeError(f"{value!r} is none of {kinds}")
    return value
