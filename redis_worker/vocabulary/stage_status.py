"""Counts of the stages of a handler that has some, for status and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias


class StageStatus(NamedTuple):
    """Counts of a stage since the start, in values."""

    name: str
    received: int
    emitted: int
    """Values passed on; more than received where the stage emits several."""
    dropped: int
    rejected: int
    failed: int
    """Failures that are retried."""
    calls: int
    """Batches handled."""
    seconds: float
    """The time that these took."""

    def plus(self, other: StageStatus) -> StageStatus:
        """Return the sum of the counts."""
        return StageStatus(self.name, *map(sum, zip(self[1:], other[1:], strict=True)))  # type: ignore[arg-type]


Stages: TypeAlias = Callable[[], Sequence[StageStatus]]
"""Returns the counts of all stages, in their order."""

STAGES = "__redis_worker_stages__"
"""The attribute of a function that has Stages."""
