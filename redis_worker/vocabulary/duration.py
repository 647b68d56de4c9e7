"""Durations as users write them: `90`, `"1.5m"`, `"24h"`, `timedelta(hours=24)`."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import timedelta
from numbers import Real
from typing import TypeAlias

_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}

Duration: TypeAlias = float | int | timedelta | str
"""Seconds, a timedelta, or a text: a number with one of the units ms, s, m, h and d, or without a unit."""

END_OF_TIME = 1e12
"""The longest duration, in seconds: Redis stores it to the millisecond."""


def duration(text: str) -> float | None:
    """Return the seconds in `text`, a number with or without a unit; None for any other text."""
    number = text.strip().rstrip("".join(_UNITS))
    unit = _UNITS.get(text.strip()[len(number) :])
    if unit is None or not number.isascii() or not number.replace(".", "", 1).isdecimal():
        return None
    return float(number) * unit


def seconds_of(value: object) -> float:
    """Return a Duration in seconds. Raises ValueError, with a text that begins with "must be", for other values."""
    found: object = value
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, str):
        found = duration(value)
    if not isinstance(found, bool) and isinstance(found, Real):
        with suppress(OverflowError):
            if not math.isnan(seconds := float(found)):
                return seconds
    raise ValueError('must be a number of seconds, or a text as "90s", "1.5m" or "24h"')
