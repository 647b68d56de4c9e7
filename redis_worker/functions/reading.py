"""The reading of a task: raw JSON to the function that it names, and its arguments."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis_worker.engine.reading import condemned, refused
from redis_worker.functions.current import CurrentTask
from redis_worker.functions.function import AnyFunction
from redis_worker.functions.marks import Marks
from redis_worker.functions.progress import Reports, reported
from redis_worker.functions.signature import Arguments
from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.payload import failure, json_type, read_object
from redis_worker.vocabulary.task import Delivery, Outcome


@dataclass(slots=True, eq=False)
class Received:
    """A task that was read."""

    delivery: Delivery
    id: str
    function: AnyFunction
    arguments: Arguments
    members: dict[str, Any]
    """All members of the payload."""
    side: Side
    deadline: float | None = None
    """The end of its time limit, in seconds since the epoch."""

    def current(self) -> CurrentTask:
        """See Running."""
        return CurrentTask(self.id, self.function.name, self.side.queue, self.delivery.attempt, self.deadline, self)

    def is_cancelled(self) -> bool:
        """See Running."""
        return self.side.marks.hold(self.delivery)

    def report(self, done: float, total: float | None, message: str | None) -> None:
        """See Running."""
        self.side.report(self.delivery, self.id, done, total, message)


@dataclass(frozen=True, slots=True)
class Side:
    """The side of the worker, as its tasks see it."""

    queue: str
    """The list of tasks."""
    marks: Marks
    """The tasks that are to be cancelled."""
    reports: Reports
    """Their progress."""

    def report(self, delivery: Delivery, id: str, done: float, total: float | None, message: str | None) -> None:
        """Take a report of a task."""
        report = reported(done, total, message)
        delivery.progress = str(report)
        self.reports.add(id, report)


class FunctionReader:
    """A decoder of tasks of a queue's functions."""

    def __init__(
        self,
        queue: str,
        functions: Mapping[str, AnyFunction],
        max_deliveries: int,
        marks: Marks | None = None,
        reports: Reports | None = None,
    ) -> None:
        self.reports = reports or Reports()
        """The progress of tasks."""
        self.marks = marks or Marks()
        """The tasks that are to be cancelled."""
        self._queue = queue
        self.side = Side(queue, self.marks, self.reports)
        self.functions = functions
        """The functions, by name."""
        self._max_deliveries = max_deliveries

    def read(self, delivery: Delivery) -> Received | Outcome:
        """Return the task, or an outcome where it cannot be run. The hot path."""
        if delivery.received is not None:
            received, delivery.received = delivery.received, None
            return received  # type: ignore[no-any-return]
        try:
            id, members = read_object(delivery.raw, delivery.plain)
        except Unreadable as error:
            return Outcome(delivery, None, None, str(error), dead=True)
        if "unique" in members:
            self.marks.on_unique()
        task: Any = members.get("task")
        name = task.get("name") if type(task) is dict else None
        function = self.functions.get(name) if type(name) is str else None
        if function is not None:
            delivery.function = name
        if delivery.deaths >= self._max_deliveries:
            return condemned(delivery, id)
        try:
            if function is None:
                raise ValueError(self._unknown(task))
            arguments = function.signature.read(task.get("args", []), task.get("kwargs", {}))
            if "retries" in members:
                _number(members, "retries")
            expires = _number(members, "expires") if "expires" in members else None
        except ValueError as error:
            return refused(delivery, id, error)
        if expires is not None and time.time() > expires:
            text = f"Processing error: {function.name} has expired before it began"
            return Outcome(delivery, id, failure(text), text)
        return Received(delivery, id, function, arguments, members, self.side)

    def _unknown(self, task: Any) -> str:
        if type(task) is not dict:
            return f"task is {json_type(task)}, not an object with name, args and kwargs"
        name = task.get("name")
        if type(name) is not str:
            return f"the name of the function is {json_type(name)}, not a string"
        near = difflib.get_close_matches(name, self.functions, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(self.functions) or 'none'}"
        return f"the queue {self._queue} has no function {name!r}; {hint}"


def _number(members: Mapping[str, Any], name: str) -> float | None:
    """Return the member `name`, None without it. Raises ValueError if it is no number."""
    value = members.get(name)
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    raise ValueError(f"{name} is {json_type(value)}, not a number")
