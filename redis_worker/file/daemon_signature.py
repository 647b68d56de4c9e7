"""The check of a daemon's function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis_worker.file.plan import DaemonPart
from redis_worker.vocabulary.calls import accepts, parameters_of
from redis_worker.vocabulary.processor import said_by


def daemon_problem(part: DaemonPart, function: Callable[..., Any]) -> str | None:
    """Return why `function` cannot be the daemon `part`, or None if it can."""
    if declared := said_by(function).keys() - {"name"}:
        return (
            f"the daemon {part.run!r} is declared with {', '.join(sorted(declared))}, options of a processor: "
            "a daemon runs until it is stopped; remove the decorator"
        )
    if accepts(function, ("the stop event",), part.arguments):
        return None
    named = f" and {', '.join(part.arguments)}" if part.arguments else ""
    return f"the daemon {part.run!r} takes {parameters_of(function)}, and is called with a stop event{named}"
