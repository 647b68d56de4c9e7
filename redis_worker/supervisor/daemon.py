"""Daemons: functions that run until stopped, coroutine functions on the event loop, plain ones in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from redis_worker.engine.awaitables import QuietCoroutine, unawaited
from redis_worker.engine.execution import Coroutines, Execution, Threads
from redis_worker.engine.guard import CallGuard
from redis_worker.engine.running import RunningTask, stack_of
from redis_worker.engine.thread_pool import OwnThreads
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
        self._stopping = asyncio.Event()
        self._stopping_thread = threading.Event()
        self._is_async = is_coroutine_function(function)
        self._execution: Execution = (
            Coroutines(QuietCoroutine(function), None)
            if self._is_async
            else Threads(partial(_call, function), None, OwnThreads(f"redis-worker {name}"))
        )
        self._guard = CallGuard(None)
        self._task: asyncio.Task[BaseException | None] | None = None
        self._began = time.monotonic()

    @property
    def condition(self) -> Condition:
        """ "running", or "stopping" after `stop`: a daemon reports no condition."""
        return "stopping" if self._stopping.is_set() else "running"

    def consuming(self) -> list[Consuming]:
        """Return no queue: a daemon's are unknown."""
        return []

    def running_tasks(self) -> list[RunningTask]:
        """Return the daemon itself, with its stack."""
        seconds = time.monotonic() - self._began
        return [RunningTask(self._name, seconds, "" if self._task is None else stack_of(self._task))]

    def stop(self) -> None:
        """Set its stop event."""
        self._stopping.set()
        self._stopping_thread.set()

    def cancel(self) -> None:
        """Cancel a coroutine. A thread cannot be cancelled: it is abandoned."""
        self.stop()
        self._guard.cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Run the function to its end. Raises the function's exception."""
        self._task = asyncio.create_task(self._run(), name=self._name)
        if self._guard.cancelled:
            self._task.cancel()
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait({self._task})
            raise
        if not self._task.cancelled() and (error := self._task.result()) is not None:
            raise error

    async def _run(self) -> BaseException | None:
        """Return the exception, if any: a SystemExit that leaves a task would end the event loop and the host."""
        try:
            answer = await self._execution.call(self._stopping if self._is_async else self._stopping_thread)
        except BaseException as error:
            if not self._is_async and is_a(error, asyncio.CancelledError):
                logger.error("the thread of %s does not end: abandoning it", self._name)
                raise
            answer, _ = self._guard.caught(error)
        return answer.exception


def _call(function: Callable[..., Any], stopping: threading.Event) -> None:
    if error := unawaited(function(stopping), "the daemon"):
        raise error
