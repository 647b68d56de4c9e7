"""The choice of an execution for a declaration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis_worker.engine.execution import Coroutines, Execution, Threads
from redis_worker.engine.processes import Processes
from redis_worker.vocabulary.processor import Execution as Declared


def execution_of(
    function: Callable[[Any], Any], declared: Declared, timeout: float | None, concurrency: int, max_deliveries: int
) -> Execution | None:
    """Return the execution of `function` for `concurrency` calls; None is inline. Raises ConfigurationError."""
    match declared:
        case "inline":
            return None
        case "async":
            return Coroutines(function, timeout)
        case "thread":
            return Threads(function, timeout, concurrency)
        case "process":
            return Processes(function, timeout, concurrency, max_deliveries)
