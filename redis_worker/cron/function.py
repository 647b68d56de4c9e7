"""The function of a cron job: found by name, checked, and called: on the event loop or in a thread."""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from redis_worker.cron.report import Report
from redis_worker.engine.execution import CAUGHT, Answer, TimedOut
from redis_worker.engine.threads import in_own_thread
from redis_worker.registry import find_function
from redis_worker.vocabulary.errors import ConfigurationError, Reject, Retry
from redis_worker.vocabulary.processor import is_coroutine_function

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Function:
    """A function of the user's, with the arguments it is called with."""

    def __init__(self, place: str, arguments: dict[str, Any], timeout: float | None, report: Report) -> None:
        """`place` is `module:function`. Raises ConfigurationError where it is not there, or takes other arguments."""
        self._function = find_function("job", place)
        self._arguments = arguments
        self._timeout = timeout
        self._report = report
        self._takes_instant = _takes_instant(self._function, place, arguments)
        self.is_async = is_coroutine_function(self._function)
        self._name = place

    async def call(self, instant: datetime) -> Answer:
        """What became of one call, for `instant`; its value is of no concern. Raises TimedOut, and if cancelled."""
        call = partial(self._function, *([instant] if self._takes_instant else ()), **self._arguments)
        return await (self._on_loop(call) if self.is_async else self._in_thread(call))

    async def _on_loop(self, call: Callable[[], Any]) -> Answer:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await call()
        except TimeoutError as error:
            if limit.expired():
                raise TimedOut from None
            return self._failed(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._failed(error)
        except CAUGHT as error:
            return self._failed(error)
        return Answer(b"")

    async def _in_thread(self, call: Callable[[], Any]) -> Answer:
        """In a thread of its own, which does not keep the process from ending."""

        def work() -> Answer:
            try:
                value = call()
                if inspect.iscoroutine(value):
                    value.close()
                    raise TypeError("a plain function returned a coroutine; it must be `async def`")
            except CAUGHT as error:
                return self._failed(error)
            return Answer(b"")

        ended = in_own_thread(work, f"cron {self._name}")
        done, _ = await asyncio.wait({ended}, timeout=self._timeout)
        if not done:
            raise TimedOut(ended)
        return ended.result()

    def _failed(self, error: BaseException) -> Answer:
        self._report.raised(error)
        text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        if isinstance(error, Retry):
            return Answer(b"", text, "retry", error.delay)
        return Answer(b"", text, "reject" if isinstance(error, Reject) else "failed")


def _takes_instant(function: Callable[..., Any], place: str, arguments: dict[str, Any]) -> bool:
    """Whether it has a parameter for the instant. Raises ConfigurationError where it cannot be called so."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):
        return False  # one written in C may not tell
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
            f"the job {place!r} needs the argument {parameter.name!r}, which is given to it by name; "
            "the only one it may have beside those is the instant it is run for"
        )
    if needed and any(name in arguments for name in [*parameters][: [*parameters].index(needed[0].name)]):
        raise ConfigurationError(f"the job {place!r} must take the instant, {needed[0].name!r}, as its first argument")
    return bool(needed)
