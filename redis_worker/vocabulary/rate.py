"""Rates as users write them: `100/m`, `5/s`, `1/10s`."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from redis_worker.vocabulary.duration import END_OF_TIME, duration
from redis_worker.vocabulary.errors import ConfigurationError


class Rate(NamedTuple):
    """A number of starts in a period."""

    most: int
    ms: int

    @classmethod
    def of(cls, name: str, value: Any) -> Self:
        """Return the rate in a text such as `100/m` or `1/10s`. Raises ConfigurationError, naming the setting."""
        number, _, period = value.partition("/") if isinstance(value, str) else ("", "", "")
        seconds = duration(period if period[:1].isdigit() else f"1{period}") if period.strip() else None
        most = int(number) if number.strip().isdecimal() and len(number) < 10 else 0
        if seconds is None or not most:
            raise ConfigurationError(f'{name} must be a text as "100/m", "5/s" or "1/10s", got {value!r}')
        if not 0.05 <= seconds <= END_OF_TIME:
            raise ConfigurationError(f"{name}: the period must be at least 50ms, got {value!r}")
        return cls(most, round(seconds * 1000))
