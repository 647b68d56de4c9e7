"""Kinds of values: each converts a TOML value, or raises ValueError."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, TypeAlias

from redis_worker.broker.connection.address import address_of, mask
from redis_worker.file.mistakes import near
from redis_worker.file.substitution import UNSET, Substituted
from redis_worker.vocabulary.duration import END_OF_TIME, seconds_of
from redis_worker.vocabulary.errors import ConfigurationError

Kind: TypeAlias = Callable[[Any], Any]

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# Messages cut longer values, in characters.
_WIDEST = 60


def text(value: Any) -> str:
    """Return a string that is not blank."""
    if not isinstance(value, str):
        raise ValueError(f"must be a text in quotes, got {shown(value)}")
    if not value.strip():
        raise ValueError("must not be empty")
    return str(value)


def name(value: Any) -> str:
    """Return a name: printable, without leading or trailing blanks."""
    found = text(value)
    if not found.isprintable() or found != found.strip():
        raise ValueError(f"must be printable, without leading or trailing blanks, got {shown(value)}")
    return found


def names(value: Any) -> list[str]:
    """Return a list of strings."""
    if not isinstance(value, list) or not all(isinstance(item, str) or item is UNSET for item in value):
        raise ValueError(f'must be a list of names, as ["a", "b"], got {shown(value)}')
    return [str(item) for item in value if item is not UNSET]


def texts(value: Any) -> list[str]:
    """Return a list of strings that are not blank; one string is a list of one."""
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError("must not be empty")
    return [text(item) for item in items if item is not UNSET]


def secret(value: Any) -> str:
    """Return a string that fits into an HTTP header; messages never show it."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text in quotes, not empty")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be of printable ASCII characters without blanks")
    return str(value)


def flag(value: Any) -> bool:
    """Return true or false."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Substituted) and value.strip().lower() in _TRUE + _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError(f"must be true or false, got {shown(value)}")


def whole(least: int | None = None, most: int | None = None) -> Kind:
    """Return the kind of whole numbers from `least` to `most`."""

    def read(value: Any) -> int:
        found = value
        if isinstance(value, Substituted):
            try:
                found = int(value)
            except ValueError:
                pass  # reported below
        if not isinstance(found, int) or isinstance(found, bool):
            raise ValueError(f"must be a whole number, got {shown(value)}")
        if least is not None and found < least:
            raise ValueError(f"must be at least {least}, got {shown(value)}")
        if most is not None and found > most:
            raise ValueError(f"must be at most {most}, got {shown(value)}")
        return found

    return read


def seconds(least: float | None = None, above: float | None = None) -> Kind:
    """Return the kind of durations: a number of seconds, or a string with a unit."""

    def read(value: Any) -> float:
        try:
            found = seconds_of(value)
        except ValueError as error:
            raise ValueError(f"{error}, got {shown(value)}") from None
        if found > END_OF_TIME:
            raise ValueError(f"is beyond all time: {shown(value)}")
        if above is not None and not found > above:
            raise ValueError(f"must be above {above:g} seconds, got {shown(value)}")
        if least is not None and not found >= least:
            raise ValueError(f"must be at least {least:g} seconds, got {shown(value)}")
        return found

    return read


def whole_seconds(value: Any) -> int:
    """Return a duration in whole seconds."""
    found = seconds()(value)
    if not found.is_integer():
        raise ValueError(f"must be whole seconds, got {shown(value)}")
    return int(found)


def choice(*known: str) -> Kind:
    """Return the kind of one of the words `known`."""

    def read(value: Any) -> str:
        if value in known:
            return str(value)
        hint = near(value, known) if isinstance(value, str) else near("", known)
        raise ValueError(f"must be one of {', '.join(known)}, got {shown(value)}" + _suffix(hint))

    return read


def _suffix(hint: str) -> str:
    return f"; {hint}" if hint.startswith("did") else ""


def url(value: Any) -> str:
    """Return a Redis URL."""
    found = text(value)
    try:
        address_of(found)
    except ConfigurationError as error:
        message = str(error).replace(repr(mask(found)), shown(value)) if isinstance(value, Substituted) else str(error)
        raise ValueError(message) from None
    return found


def table(value: Any) -> dict[str, Any]:
    """Return a table of free keys, as `{ a = 1 }`."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a table, as {{ a = 1 }}, got {shown(value)}")
    found: dict[str, Any] = plain(value)
    return found


def json_value(value: Any) -> Any:
    """Return a value that JSON can hold: no dates, no `nan`."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, (date, datetime, time)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be a JSON value, which {shown(value)} is not")
    return plain(value)


def plain(value: Any) -> Any:
    """Return `value` with each Substituted as a plain string."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Substituted) else value


def got(text: str, value: Any) -> str:
    """Return `text`, a message that may end with ", got …", showing `value` as in the file if it has variables."""
    if isinstance(value, Substituted) and ", got " in text:
        return f"{text.partition(', got ')[0]}, got {shown(value)}"
    return text


def shown(value: Any) -> str:
    """Return `value` as TOML writes it; a variable by its name, as its value may be a secret."""
    if isinstance(value, Substituted):
        value = value.source
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        return quoted if len(quoted) <= _WIDEST else f'{quoted[:_WIDEST]}…"'
    return str(value).lower() if isinstance(value, bool) else str(value)
