"""The function of a cron job: found by name, checked, and called on the event loop or in a thread."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from redis_worker.cron.report import Report
from redis_worker.engine.awaitables import QuietCall, QuietCoroutine
from redis_worker.engine.execution import Answer, Coroutines, Execution, Threads, TimedOut
from redis_worker.engine.guard import CallGuard
from redis_worker.engine.thread_pool import OwnThreads
from redis_worker.registry import find_function
from redis_worker.vocabulary.error_text import error_text
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import is_coroutine_function

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Function(CallGuard):
    """The user's function with its arguments."""

    def __init__(self, place: str, arguments: dict[str, Any], timeout: float | None, report: Report) -> None:
        """`place` is `module:function`. Raises ConfigurationError if it is missing, or takes other arguments."""
        super().__init__(timeout)
        function = find_function("job", place)
        takes_instant = _takes_instant(function, place, arguments)
        self._report = report
        self.is_async = is_coroutine_function(function)

        def call(instant: datetime) -> Any:
            return function(*([instant] if takes_instant else ()), **arguments)

        self._execution: Execution = (
            Coroutines(QuietCoroutine(call), timeout)
            if self.is_async
            else Threads(QuietCall(call), timeout, OwnThreads(f"cron {place}"))
        )

    async def call(self, instant: datetime) -> Answer:
        """Call the function for `instant`; return the outcome without the value. Raises TimedOut and CancelledError."""
        try:
            answer = await self._execution.call(instant)
        except TimedOut:
            raise
        except BaseException as error:
            answer, _ = self.caught(error)
        if answer.exception is None:
            return answer
        self._report.raised(answer.exception)
        return replace(answer, error=" ".join(error_text(answer.exception, named=True).split()))


def _takes_instant(function: Callable[..., Any], place: str, arguments: dict[str, Any]) -> bool:
    """Return True if the function has a parameter for the instant. Raises ConfigurationError if the call would fail."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):
        return False  # a function written in C may have no signature
    named = [name for name, parameter in parameters.items() if parameter.kind is not parameter.POSITIONAL_ONLY]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for name in arguments:
            if name not in named:
                near = difflib.get_close_matches(name, named, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigurationError(f"the job {place!r} has no argument {name!r}{hint}")
    needed = [
        parameter
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in arguments
    ]
    for parameter in needed[1:] or [one for one in needed if one.kind not in _POSITIONAL]:
        raise ConfigurationError(
            f"the job {place!r} needs the argument {parameter.name!r}: set it in `arguments`; "
            "the only parameter without a value there may be the instant of the run"
        )
    if needed and any(name in arguments for name in [*parameters][: [*parameters].index(needed[0].name)]):
        raise ConfigurationError(f"the job {place!r} must take the instant, {needed[0].name!r}, as its first argument")
    return bool(needed)
