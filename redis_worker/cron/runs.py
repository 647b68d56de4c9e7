"""The runs of a job in this process, from the claim to the recorded outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from redis_worker.broker.cron import JobState, Run
from redis_worker.cron.function import Function
from redis_worker.cron.report import Report
from redis_worker.cron.schedule import Schedule
from redis_worker.engine.contexts import Contexts
from redis_worker.engine.execution import Answer, TimedOut
from redis_worker.engine.reconnect import GivenUp, Reconnect
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.running import RunningTask, stack_of
from redis_worker.engine.waiting import first_of, happens
from redis_worker.vocabulary.errors import RedisWorkerError

# The time limit for recording a cancelled run, in seconds; after that it is presumed lost.
_RECORD_TIMEOUT = 3.0


class Ended(NamedTuple):
    """The outcome of a run."""

    outcome: str
    """"success", "error", "timeout", "cancelled"; by hand also "skipped": another run is in progress."""
    error: str | None = None
    seconds: float = 0.0


class Runs:
    """The running functions: coroutines in the event loop, plain functions in a thread each."""

    def __init__(
        self,
        function: Function,
        schedule: Schedule,
        state: JobState,
        policy: RetryPolicy,
        redis: Reconnect,
        report: Report,
    ) -> None:
        self._function = function
        self._schedule = schedule
        self._state = state
        self._policy = policy
        self._redis = redis
        self._report = report
        self._contexts = Contexts()
        self._stopping = asyncio.Event()
        self._cancelled = asyncio.Event()
        self._running: dict[asyncio.Task[Ended], tuple[Run, float]] = {}
        """The run of each task, and its start time."""
        self._unrecorded = 0
        """The number of finished runs that are not recorded yet."""
        self._recorded = asyncio.Event()
        self._presumed_lost: set[Run] = set()
        """Runs already reported as presumed lost."""
        self._calls: dict[Run, asyncio.Task[Answer]] = {}
        """The current call of the function in each run."""

    def __len__(self) -> int:
        return len(self._running)

    def inherit(self) -> None:
        """Have runs inherit the caller's context, in place of the one in which this object was made."""
        self._contexts = Contexts()

    def start(self, run: Run, then: Callable[[], Awaitable[None]] | None = None) -> asyncio.Task[Ended]:
        """Start a claimed run in a new task; call `then` after its end."""
        self._state.keep(run, lambda: self._presume_lost(run))
        task = asyncio.create_task(self._run(run, then))
        self._running[task] = run, time.monotonic()
        task.add_done_callback(self._running.pop)
        return task

    def running_tasks(self) -> list[RunningTask]:
        """Return the runs by their instants, oldest first."""
        return [self._seen(run, time.monotonic() - began) for run, began in self._running.values()]

    def _seen(self, run: Run, seconds: float) -> RunningTask:
        call = self._calls.get(run)
        instant = self._schedule.local(run.instant).isoformat(" ", "seconds")
        return RunningTask(instant, seconds, "" if call is None else stack_of(call))

    def stop(self) -> None:
        """Retry nothing more."""
        self._stopping.set()

    def cancel(self) -> None:
        """Cancel coroutines, and stop waiting for threads."""
        self.stop()
        self._cancelled.set()

    def _presume_lost(self, run: Run) -> None:
        if run not in self._presumed_lost:
            self._presumed_lost.add(run)
            self._report.presumed_lost()

    async def ended(self) -> None:
        """Wait until nothing runs. Raises nothing."""
        while self._running:
            await asyncio.wait(self._running)

    async def _run(self, run: Run, then: Callable[[], Awaitable[None]] | None) -> Ended:
        began = time.monotonic()
        try:
            try:
                ended, leftover = await self._tries(run, began)
            finally:
                self._calls.pop(run, None)
            self._report.ended(self._schedule.local(run.instant), *ended)
            if leftover is not None:
                # The thread continues past the time limit: record that, so that `overlap` still applies.
                await self._record(run, ended, goes_on=True)
                await self._until_cancelled(leftover)
            self._state.let_go(run)  # before the end is recorded: then the claim was not lost
            if leftover is None or leftover.done():
                # A call that cannot be cancelled keeps its lease until its process ends.
                await self._record(run, ended)
        finally:
            self._state.let_go(run)
            self._presumed_lost.discard(run)
        if then is not None and not self._stopping.is_set():
            await then()
        return ended

    async def _tries(self, run: Run, began: float) -> tuple[Ended, asyncio.Future[Answer] | None]:
        """Call the function, with retries. Return the outcome, and the call that continues, if any."""
        instant = self._schedule.local(run.instant)
        retries = 0
        while True:
            outcome = "error"
            call = asyncio.create_task(self._function.call(instant), context=self._contexts.fresh())
            self._calls[run] = call
            await self._until_cancelled(call)
            if not call.done():
                self._function.cancelled = True
                call.cancel()
                await asyncio.wait({call})
            if call.cancelled() and self._function.cancelled:
                return self._cut_short(time.monotonic() - began)
            try:
                answer, left = call.result(), None
            except asyncio.CancelledError:  # the function cancelled its own task, and then returned
                answer, left = Answer(b"", "CancelledError: the function cancelled itself"), None
            except TimedOut as error:
                outcome, left = "timeout", error.leftover
                answer = Answer(b"", "it exceeded its time limit")
            seconds = time.monotonic() - began
            if answer.error is None:
                return Ended("success", None, seconds), None
            delay = None if left is not None else self._policy.delay(answer, retries)
            if delay is None or self._stopping.is_set():
                return Ended(outcome, answer.error, seconds), left
            self._report.again(answer.error, delay)
            if await happens(self._stopping, delay):
                return Ended(outcome, answer.error, time.monotonic() - began), None
            retries += 1

    def _cut_short(self, seconds: float) -> tuple[Ended, asyncio.Future[Answer] | None]:
        if self._function.is_async:
            return Ended("cancelled", "it was cancelled", seconds), None
        # The end of an abandoned thread is not observed: it counts as running until its lease ends.
        return Ended("cancelled", "it was cancelled; its thread continues", seconds), asyncio.Future()

    async def _until_cancelled(self, future: asyncio.Future[Any]) -> None:
        await first_of(future, self._cancelled.wait())

    async def recorded(self, end: asyncio.Event) -> None:
        """Wait until all finished runs are recorded, or `end` is set: until then other processes see them running."""
        while self._unrecorded and not end.is_set():
            self._recorded.clear()
            await first_of(self._recorded.wait(), end.wait())

    async def _record(self, run: Run, ended: Ended, goes_on: bool = False) -> None:
        self._unrecorded += not goes_on
        try:
            await self._write(run, ended, goes_on)
        finally:
            self._unrecorded -= not goes_on
            self._recorded.set()

    async def _write(self, run: Run, ended: Ended, goes_on: bool) -> None:
        """Record the outcome, retrying until it succeeds; after `cancel` only for a short time."""
        write = asyncio.create_task(
            self._redis.call(lambda: self._state.finish(run, *ended, goes_on=goes_on), self._cancelled)
        )
        await self._until_cancelled(write)
        await asyncio.wait({write}, timeout=_RECORD_TIMEOUT)
        if not write.done():
            write.cancel()
            return
        error = None if write.cancelled() else write.exception()
        if isinstance(error, (RedisWorkerError, GivenUp)):
            self._report.unrecorded(ended.outcome, error)
        elif error is not None:
            raise error
        elif not write.cancelled() and write.result():
            self._presume_lost(run)
