"""The limits of functions: so many starts in a period, so many at a time, so many at a time for each key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from redis_worker.vocabulary.checks import check_whole
from redis_worker.vocabulary.limit import Limit
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.rate import Rate


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a function declares, over all workers of its queue."""

    rate: Rate | None = None
    concurrency: int | None = None
    per_key: int | None = None
    """The tasks at a time for each value of the member `key`."""

    def __bool__(self) -> bool:
        return self != Limits()

    def of(self, name: str, key: Any) -> list[Limit]:
        """Return the limits of a task of the function `name`."""
        limits = []
        if self.rate is not None:
            limits.append(Limit(f"rate:{name}", *self.rate))
        if self.concurrency is not None:
            limits.append(Limit(f"concurrency:{name}", self.concurrency))
        if self.per_key is not None and key is not None:
            limits.append(Limit(f"key:{name}:{hashlib.sha256(dumps(key)).hexdigest()[:32]}", self.per_key))
        return limits


def declared_limits(name: str, rate: str | None, concurrency: int | None, per_key: int | None) -> Limits:
    """Return the limits of the function `name`. Raises ConfigurationError."""
    owner = f"function {name}"
    return Limits(
        None if rate is None else Rate.of(f"{owner}: rate", rate),
        None if concurrency is None else check_whole(f"{owner}: concurrency", concurrency, 1),
        None if per_key is None else check_whole(f"{owner}: per_key", per_key, 1),
    )
