"""Checks of settings: one sentence names the setting that is wrong."""

from __future__ import annotations

from numbers import Real
from typing import Any

from redis_worker.vocabulary.duration import END_OF_TIME, Duration, seconds_of
from redis_worker.vocabulary.errors import ConfigurationError


def check_seconds(name: str, value: Duration, least: float | None = None, above: float | None = None) -> float:
    """Return the setting `name` in seconds. Raises ConfigurationError if it is no duration, or out of range."""
    try:
        seconds = seconds_of(value)
    except ValueError as error:
        raise ConfigurationError(f"{name} {error}, or a timedelta; got {value!r}") from None
    if seconds > END_OF_TIME:
        raise ConfigurationError(f"{name} is too long: {value!r}")
    _check_range(name, value, seconds, least, above)
    return seconds


def check_whole(name: str, value: Any, least: int) -> int:
    """Return the setting `name` as an int. Raises ConfigurationError if it is no whole number, or out of range."""
    whole = isinstance(value, int) or (isinstance(value, Real) and float(value).is_integer())
    if not whole or isinstance(value, bool):
        raise ConfigurationError(f"{name} must be a whole number, got {value!r}")
    _check_range(name, value, value, least, None)
    return int(value)


def check_flag(name: str, value: Any) -> bool:
    """Return the boolean setting `name`. Raises ConfigurationError for other types: the text "no" would be true."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}")
    return value


def _check_range(name: str, value: Any, number: float, least: float | None, above: float | None) -> None:
    if above is not None and not number > above:
        raise ConfigurationError(f"{name} must be above {above:g} seconds, got {value}")
    if least is not None and not number >= least:
        wanted = "not be negative" if least == 0 else f"be at least {least:g}"
        raise ConfigurationError(f"{name} must {wanted}, got {value}")
