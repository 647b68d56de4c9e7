"""Daemons: functions that run until stopped, coroutine functions on the event loop, plain ones in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from redis_worker.engine.awaitables import resolved, unawaited
from redis_worker.engine.guard import is_interrupt
from redis_worker.engine.running import RunningTask, stack_of
from redis_worker.engine.threads import in_own_thread
from redis_worker.file.daemon_signature import daemon_problem
from redis_worker.file.plan import DaemonPart
from redis_worker.registry import find_function
from redis_worker.vocabulary.error_text import is_a
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.processor import is_coroutine_function
from redis_worker.vocabulary.service import Condition, Consuming

logger = library_logger("redis_worker.supervisor")


def daemon_of(part: DaemonPart) -> Daemon:
    """Return one run of `part`. Raises ConfigurationError if the function is missing or takes no stop event."""
    function = find_function("daemon", part.run)
    if problem := daemon_problem(part, function):
        raise ConfigurationError(problem)
    return Daemon(part.name, partial(function, **part.arguments) if part.arguments else function)


class Daemon:
    """One run of a daemon."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """`function` receives an asyncio.Event if it is a coroutine function, else a threading.Event, in a thread."""
        self._name = name
        self._function = function
        self._stopping = asyncio.Event()
        self._stopping_thread = threading.Event()
        self._task: asyncio.Task[BaseException | None] | None = None
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._began = time.monotonic()
        self._cancelled = False

    @property
    def condition(self) -> Condition:
        """ "running", or "stopping" after `stop`: a daemon reports no condition."""
        return "stopping" if self._stopping.is_set() else "running"

    def consuming(self) -> list[Consuming]:
        """Return no queue: a daemon's are unknown."""
        return []

    def running_tasks(self) -> list[RunningTask]:
        """Return the daemon itself, with its stack if it is a coroutine."""
        seconds = time.monotonic() - self._began
        return [RunningTask(self._name, seconds, stack_of(self._coroutine) if self._coroutine is not None else "")]

    def stop(self) -> None:
        """Set its stop event."""
        self._stopping.set()
        self._stopping_thread.set()

    def cancel(self) -> None:
        """Cancel a coroutine. A thread cannot be cancelled: it is abandoned."""
        self.stop()
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Run the function to its end. Raises the function's exception."""
        self._task = asyncio.create_task(
            self._call() if is_coroutine_function(self._function) else self._call_in_thread(), name=self._name
        )
        if self._cancelled:
            self._task.cancel()
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait({self._task})
            raise
        if not self._task.cancelled() and (error := self._task.result()) is not None:
            raise error

    async def _call(self) -> BaseException | None:
        """Return the exception, if any: a SystemExit that leaves a task would end the event loop and the host."""
        try:
            self._coroutine = self._function(self._stopping)
            await resolved(self._coroutine)
        except BaseException as error:
            if is_interrupt(error):
                raise
            if is_a(error, asyncio.CancelledError) and self._cancelled:
                return None
            return error
        return None

    async def _call_in_thread(self) -> BaseException | None:
        """Run the function in a daemon thread, which does not keep the program from ending."""

        def call() -> BaseException | None:
            try:
                return unawaited(self._function(self._stopping_thread), "the daemon")
            except BaseException as error:
                return error

        ended = in_own_thread(call, f"redis-worker {self._name}")
        try:
            return await ended
        except asyncio.CancelledError:
            logger.error("the thread of %s does not end: abandoning it", self._name)
            raise
