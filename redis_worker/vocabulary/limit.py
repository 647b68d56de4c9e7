"""Limits on the starts of tasks, over all workers of a queue, and the lanes in which tasks wait for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from redis_worker.vocabulary.payload import dumps

# The part of a period within which a task starts after Redis has let it, and its limits in ms. A start counts as if
# it came at the end of that time: so the limit holds for the starts themselves, and the rate is lower by this part.
_PART, _LEAST_MS, _MOST_MS = 1 / 50, 5.0, 100.0
# The same for a task that waits for its process.
_IN_PROCESS_MS = 60_000.0
# Scores of lanes in the sorted set of delayed tasks: above all due times, and exact.
_FIRST, _LANES = 2**52, 2**51


class Limit(NamedTuple):
    """At most `most` starts in each period of `ms`; where that is 0, at most `most` tasks at a time."""

    name: str
    most: int
    ms: int = 0


class Lane:
    """The limits of some tasks, which wait for them in one line."""

    def __init__(self, limits: Sequence[Limit], in_process: bool = False) -> None:
        """`in_process` if the tasks run in child processes, which may have to start first."""
        described = [[limit.name, limit.most, limit.ms] for limit in limits]
        self.score = _FIRST + int.from_bytes(hashlib.sha256(dumps(described)).digest()[:8]) % _LANES
        """The score of its waiting tasks in the sorted set of delayed tasks."""
        self.text: bytes = dumps([self.score, *described])
        """Its JSON, see gate.lua."""
        self.ends = any(not limit.ms for limit in limits)
        """True if the end of a task lets another one start."""
        periods = [limit.ms for limit in limits if limit.ms]
        slack = max(_LEAST_MS, min(min(periods) * _PART, _MOST_MS)) if periods else None
        self.slack = _IN_PROCESS_MS if in_process and periods else slack
        """The time in ms within which a task starts after it may; None if any time will do."""
        self.is_reported = in_process
        """True if each start is reported once it has come, since that time is too long to count."""


def waits_for_a_limit(score: float) -> bool:
    """Return True if the score of a delayed task, in ms, is that of a lane: it waits for a limit, not for a time."""
    return score >= _FIRST
