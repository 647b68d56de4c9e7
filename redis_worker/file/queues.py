"""Queues of functions: the worker of a part, made when the extra is needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from redis_worker.file.plan import TasksPart
from redis_worker.registry import find_object
from redis_worker.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from redis_worker.functions.queue import TaskQueue
    from redis_worker.functions.worker import FunctionWorker


def is_queue(found: object) -> bool:
    """Return True if `found` is a TaskQueue. The extra is not needed to find out."""
    module = sys.modules.get("redis_worker.functions.queue")
    return module is not None and isinstance(found, module.TaskQueue)


def find_queue(place: str) -> TaskQueue:
    """Return the queue at `place` (module:name). Raises ConfigurationError."""
    from redis_worker.functions.queue import TaskQueue

    found = find_object("queue", place)
    if not isinstance(found, TaskQueue):
        raise ConfigurationError(f"the queue {place!r} is of type {type(found).__name__}; it must be a TaskQueue")
    return found


def function_worker_of(part: TasksPart, **options: Any) -> FunctionWorker:
    """Return the worker of `part`; `options` are those of FunctionWorker. Raises ConfigurationError."""
    return find_queue(part.queue).worker(part.concurrency, redis=part.url, **options)
