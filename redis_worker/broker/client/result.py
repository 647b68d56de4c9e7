"""The result of one task, read from its JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis_worker.vocabulary.errors import TaskError
from redis_worker.vocabulary.payload import loads


class Result(NamedTuple):
    """The result of one task."""

    id: str
    value: Any = None
    error: str | None = None
    """The text of an error result; None if the task succeeded."""

    def get(self) -> Any:
        """Return the value. Raises TaskError if the task failed."""
        if self.error is not None:
            raise TaskError(self.id, self.error)
        return self.value


def read_result(id: str, raw: bytes) -> Result:
    """Return the result of the task `id` in `raw`, an error if it is none."""
    try:
        return result_of(id, loads(raw))
    except ValueError:
        return result_of(id, None)


def result_of(id: str, content: Any) -> Result:
    """Return the result of the task `id` from its JSON value, an error if that is no result."""
    try:
        if content["status"] == "success":
            return Result(id, content["result"])
        return Result(id, error=str(content["error"]))
    except (KeyError, TypeError):
        return Result(id, error="the result is not a JSON object with status and result or error")
