"""A length of time as people write it: `90`, `1.5m`, `24h`."""

from __future__ import annotations

_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}

END_OF_TIME = 1e12
"""More seconds than anybody means, and near enough for Redis to hold it to the millisecond."""


def duration(text: str) -> float | None:
    """The seconds that `text` says: a number, with a unit or without one; None where it says none."""
    number = text.strip().rstrip("".join(_UNITS))
    unit = _UNITS.get(text.strip()[len(number) :])
    if unit is None or not number.isascii() or not number.replace(".", "", 1).isdecimal():
        return None
    return float(number) * unit
