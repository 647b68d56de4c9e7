"""The lanes of functions' tasks: the limits that each of them is under."""

from __future__ import annotations

from redis_worker.functions.reading import FunctionReader, Received
from redis_worker.vocabulary.limit import Lane
from redis_worker.vocabulary.task import Delivery


class FunctionLanes:
    """The lanes of the tasks of a queue's functions."""

    def __init__(self, reader: FunctionReader) -> None:
        self._read = reader.read
        self._lanes: dict[str, Lane | None] = {}
        """The lanes of tasks without a key, by function."""

    def __call__(self, delivery: Delivery) -> Lane | None:
        """Return the lane of a task; None if it may start at once, as one that gets an error for an answer may."""
        received = self._read(delivery)
        if not isinstance(received, Received):
            return None
        function, key = received.function, received.members.get("key")
        in_process = function.declaration.execution == "process"
        if key is not None and function.limits.per_key is not None:
            return Lane(function.limits.of(function.name, key), in_process)
        if function.name not in self._lanes:
            limits = function.limits.of(function.name, None)
            self._lanes[function.name] = Lane(limits, in_process) if limits else None
        return self._lanes[function.name]
