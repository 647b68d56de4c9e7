"""The limits of functions: so many starts in a period, so many at a time, so many at a time for each key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from redis_worker.vocabulary.checks import check_whole
from redis_worker.vocabulary.errors import ConfigurationError
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
    in_order: bool = False
    """True if the tasks of a key run one after the other, in the order of their submission."""

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
            limits.append(Limit(f"key:{name}:{_digest(key)}", self.per_key))
        return limits

    def order_of(self, name: str, key: Any) -> str:
        """Return the digest that the tasks of the function `name` with this key share; empty if they have no order."""
        return _digest([name, key]) if self.in_order and key is not None else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(dumps(value)).hexdigest()[:32]


def declared_limits(
    name: str, rate: str | None, concurrency: int | None, per_key: int | None, in_order: bool
) -> Limits:
    """Return the limits of the function `name`. Raises ConfigurationError."""
    owner = f"function {name}"
    if in_order and per_key != 1:
        raise ConfigurationError(f"{owner}: in_order=True needs per_key=1: a task ends before the next one starts")
    return Limits(
        None if rate is None else Rate.of(f"{owner}: rate", rate),
        None if concurrency is None else check_whole(f"{owner}: concurrency", concurrency, 1),
        None if per_key is None else check_whole(f"{owner}: per_key", per_key, 1),
        in_order,
    )
