"""The function of a cron job: found by name, checked, and called on the event loop or in a thread."""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

from redis_worker.cron.report import Report
from redis_worker.engine.awaitables import is_awaitable
from redis_worker.engine.execution import Answer, TimedOut, discard_result, judged, within
from redis_worker.engine.guard import is_interrupt
from redis_worker.engine.threads import in_own_thread
from redis_worker.registry import find_function
from redis_worker.vocabulary.error_text import error_text, is_a
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import is_coroutine_function

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Function:
    """The user's function with its arguments."""

    def __init__(self, place: str, arguments: dict[str, Any], timeout: float | None, report: Report) -> None:
        """`place` is `module:function`. Raises ConfigurationError if it is missing, or takes other arguments."""
        self._function = find_function("job", place)
        self._arguments = arguments
        self._timeout = timeout
        self._report = report
        self._takes_instant = _takes_instant(self._function, place, arguments)
        self.is_async = is_coroutine_function(self._function)
        self._name = place
        self.cancelled = False
        """True once runs are cancelled from outside: a cancellation then does not come from the function."""

    async def call(self, instant: datetime) -> Answer:
        """Call the function for `instant`; return the outcome without the value. Raises TimedOut and CancelledError."""
        call = partial(self._function, *([instant] if self._takes_instant else ()), **self._arguments)
        if self.is_async:
            return await self._on_loop(call, self._timeout)
        return await self._in_thread(call)

    async def _on_loop(self, call: Callable[[], Any], timeout: float | None) -> Answer:
        try:
            await within(timeout, call())
        except TimedOut:
            raise
        except BaseException as error:
            if is_interrupt(error) or (self.cancelled and is_a(error, asyncio.CancelledError)):
                raise
            return self._failed(error)
        return Answer(b"")

    async def _in_thread(self, call: Callable[[], Any]) -> Answer:
        """Call it in a daemon thread, which does not keep the process from ending; await an awaitable result here."""

        def work() -> Answer | Awaitable[Any]:
            try:
                value = call()
                return value if is_awaitable(value) else Answer(b"")
            except BaseException as error:
                return self._failed(error)

        clock = asyncio.get_running_loop().time
        began = clock()
        ended = in_own_thread(work, f"cron {self._name}")
        done, _ = await asyncio.wait({ended}, timeout=self._timeout)
        if not done:
            ended.add_done_callback(discard_result)
            raise TimedOut(ended)
        answer = ended.result()
        if isinstance(answer, Answer):
            return answer
        left = None if self._timeout is None else max(0.0, began + self._timeout - clock())
        return await self._on_loop(lambda: answer, left)

    def _failed(self, error: BaseException) -> Answer:
        self._report.raised(error)
        error, verdict, delay = judged(error)
        return Answer(b"", " ".join(error_text(error, named=True).split()), verdict, delay, error)


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
