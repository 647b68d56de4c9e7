"""Whether functions can be called as they are to be, and how to say what they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from redis_worker.supervisor.plan import DaemonPart


def accepts(function: Callable[..., Any], given: tuple[object, ...], arguments: Mapping[str, Any]) -> bool:
    """Whether it can be called so; True where it does not tell what it takes."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*given, **arguments)
    except TypeError:
        return False
    return True


def no_daemon(part: DaemonPart, function: Callable[..., Any]) -> str | None:
    """Why `function` cannot be the daemon `part`; None where it can."""
    if accepts(function, ("the stop event",), part.arguments):
        return None
    named = f" and {', '.join(part.arguments)}" if part.arguments else ""
    return f"the daemon {part.run!r} takes {_signature(function)}, and is called with a stop event{named}"


def _signature(function: Callable[..., Any]) -> str:
    names = [str(parameter).partition(":")[0].partition("=")[0].strip()
             for parameter in inspect.signature(function).parameters.values()]  # fmt: skip
    return ", ".join(names) or "nothing"
