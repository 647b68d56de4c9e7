"""Limits on the starts of tasks, over all workers of a queue: `rate="100/m"`, and so many at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from redis_worker.vocabulary.duration import END_OF_TIME, duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.payload import dumps

# The part of a period within which a task starts after Redis has let it, and its limits in ms. A start counts as if
# it came at the end of that time: so the limit holds for the starts themselves, and the rate is lower by this part.
_PART, _LEAST_MS, _MOST_MS = 1 / 50, 5.0, 100.0
# Scores of lanes in the sorted set of delayed tasks: above all due times, and exact.
_FIRST, _LANES = 2**52, 2**51


class Limit(NamedTuple):
    """At most `most` starts in each period of `ms`; where that is 0, at most `most` tasks at a time."""

    name: str
    most: int
    ms: int = 0
    is_ordered: bool = False
    """True if each task waits for the answer of the one before, whatever happens to its worker."""


class Lane:
    """The limits of some tasks, which wait for them in one line."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        described = [[limit.name, limit.most, limit.ms, int(limit.is_ordered)] for limit in limits]
        self.score = _FIRST + int.from_bytes(hashlib.sha256(dumps(described)).digest()[:8]) % _LANES
        """The score of its waiting tasks in the sorted set of delayed tasks."""
        self.text: bytes = dumps([self.score, *described])
        """Its JSON, see gate.lua."""
        self.ends = any(not limit.ms for limit in limits)
        """True if the end of a task lets another one start."""
        periods = [limit.ms for limit in limits if limit.ms]
        self.slack = max(_LEAST_MS, min(min(periods) * _PART, _MOST_MS)) if periods else None
        """The time in ms within which a task starts after it may; None if any time will do."""


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


def waits_for_a_limit(score: float) -> bool:
    """Return True if the score of a delayed task, in ms, is that of a lane: it waits for a limit, not for a time."""
    return score >= _FIRST
