"""The lanes of functions' tasks: the limits that each of them is under."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from redis_worker.functions.function import AnyFunction
from redis_worker.functions.reading import FunctionReader, Received
from redis_worker.vocabulary.limit import Lane
from redis_worker.vocabulary.task import Delivery

# Lanes that are remembered: to make one takes some 20 us.
_KEPT = 4096


class FunctionLanes:
    """The lanes of the tasks of a queue's functions."""

    def __init__(self, reader: FunctionReader) -> None:
        """`reader` has the same side as that of the handler, which finds the task read."""
        self._read = reader.read
        self._known = lru_cache(_KEPT, typed=True)(_lane)

    def __call__(self, delivery: Delivery) -> Lane | None:
        """Return the lane of a task; None if it may start at once, as one that gets an error for an answer may."""
        received = self._read(delivery)
        if not isinstance(received, Received):
            return None
        if "expires" not in received.members:  # that is looked at again when the task starts
            delivery.received = received
        function = received.function
        if not function.limits:
            return None
        key = None if function.limits.per_key is None else received.members.get("key")
        if isinstance(key, (list, dict)):  # of another language
            return _lane(function, key)
        return self._known(function, key)


def _lane(function: AnyFunction, key: Any) -> Lane | None:
    limits = function.limits.of(function.name, key)
    return Lane(limits, function.declaration.execution == "process") if limits else None
