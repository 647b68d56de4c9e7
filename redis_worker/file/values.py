"""Kinds of values: each takes what TOML says, and returns what is meant or raises ValueError."""

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
# More than that of a wrong value says nothing more.
_WIDEST = 60


def text(value: Any) -> str:
    """A text that says something."""
    if not isinstance(value, str):
        raise ValueError(f"must be a text in quotes, got {shown(value)}")
    if not value.strip():
        raise ValueError("must not be empty")
    return str(value)


def name(value: Any) -> str:
    """A name: printable, and without blanks at its ends."""
    said = text(value)
    if not said.isprintable() or said != said.strip():
        raise ValueError(f"must be printable and without blanks at its ends, got {shown(value)}")
    return said


def names(value: Any) -> list[str]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) or item is UNSET for item in value):
        raise ValueError(f'must be a list of names, as ["a", "b"], got {shown(value)}')
    return [str(item) for item in value if item is not UNSET]


def secret(value: Any) -> str:
    """A text that fits into an HTTP header, and is shown to nobody."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text in quotes, and not an empty one")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be of printable ASCII characters without blanks")
    return str(value)


def flag(value: Any) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Substituted) and value.strip().lower() in _TRUE + _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError(f"must be true or false, got {shown(value)}")


def whole(least: int | None = None, most: int | None = None) -> Kind:
    """A whole number."""

    def read(value: Any) -> int:
        found = value
        if isinstance(value, Substituted):
            try:
                found = int(value)
            except ValueError:
                pass  # it is said below what it is not
        if not isinstance(found, int) or isinstance(found, bool):
            raise ValueError(f"must be a whole number, got {shown(value)}")
        if least is not None and found < least:
            raise ValueError(f"must be at least {least}, got {shown(value)}")
        if most is not None and found > most:
            raise ValueError(f"must be at most {most}, got {shown(value)}")
        return found

    return read


def seconds(least: float | None = None, above: float | None = None) -> Kind:
    """A time: a number of seconds, or a text with a unit."""

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
    """A time without a fraction of a second."""
    found = seconds()(value)
    if not found.is_integer():
        raise ValueError(f"must be whole seconds, got {shown(value)}")
    return int(found)


def choice(*known: str) -> Kind:
    """One of some words."""

    def read(value: Any) -> str:
        if value in known:
            return str(value)
        said = near(value, known) if isinstance(value, str) else near("", known)
        raise ValueError(f"must be one of {', '.join(known)}, got {shown(value)}" + _meant(said))

    return read


def _meant(said: str) -> str:
    return f"; {said}" if said.startswith("did") else ""


def url(value: Any) -> str:
    """Where Redis is."""
    said = text(value)
    try:
        address_of(said)
    except ConfigurationError as error:
        text_of_it = (
            str(error).replace(repr(mask(said)), shown(value)) if isinstance(value, Substituted) else str(error)
        )
        raise ValueError(text_of_it) from None
    return said


def table(value: Any) -> dict[str, Any]:
    """A table of one's own, as `{ a = 1 }`."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a table, as {{ a = 1 }}, got {shown(value)}")
    found: dict[str, Any] = plain(value)
    return found


def json_value(value: Any) -> Any:
    """Anything that JSON has as well: no dates, no `nan`."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, (date, datetime, time)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be a JSON value, which {shown(value)} is not")
    return plain(value)


def plain(value: Any) -> Any:
    """The same without traces of the environment."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Substituted) else value


def got(text: str, value: Any) -> str:
    """Return `text`, which may end with ", got …", with what the file says of `value` there if it has variables."""
    if isinstance(value, Substituted) and ", got " in text:
        return f"{text.partition(', got ')[0]}, got {shown(value)}"
    return text


def shown(value: Any) -> str:
    """Return `value` as TOML has it, or what it is; a variable by its name, for its value may be a secret."""
    if isinstance(value, Substituted):
        value = value.source
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        said = json.dumps(value, ensure_ascii=False)
        return said if len(said) <= _WIDEST else f'{said[:_WIDEST]}…"'
    return str(value).lower() if isinstance(value, bool) else str(value)
