"""The worker: claimer, runner and settler together, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import islice
from typing import Any, Protocol, TypeAlias

from redis_worker.engine.claimer import Claimer
from redis_worker.engine.guard import id_in
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.runner import Runner
from redis_worker.engine.running import RunningTask, stack_of
from redis_worker.engine.settler import Settler
from redis_worker.engine.waiting import first_of
from redis_worker.ports import Observer, Queue
from redis_worker.vocabulary.task import Delivery

# The time limit for releasing tasks, and for the clean-up of cancelled coroutines, in seconds.
_LAST_WORDS = 2.0
# The time limit for that and the writing of the last results together, in seconds.
_FAREWELL = 3.0
# The time limit of a claim under way, in seconds: it is never cancelled while it waits for the server.
_CLAIM_ENDS = 3.0

Role: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Runs beside a worker until it is cancelled."""


class Closable(Protocol):
    """A place of calls."""

    def close(self) -> None:
        """Stop the calls that can be stopped, without waiting."""


class Worker:
    """The roles of a queue at work, until stopped or, with `burst`, until the queue is empty."""

    def __init__(
        self,
        queue: Queue,
        runner: Callable[[Settler], Runner],
        execution: Closable | None,
        observer: Observer,
        *,
        shutdown_timeout: float,
        burst: bool = False,
        max_tasks: int | None = None,
        reconnect: Reconnect | None = None,
        upkeep: Callable[[Worker], Sequence[Role]] = lambda _: (),
    ) -> None:
        """`runner` builds the runner; `execution`, if its processor needs one, is closed at the end.

        Workers that share a server may share a `reconnect`. `upkeep` returns the roles that run beside this worker.
        """
        self._execution = execution
        self._shutdown_timeout = shutdown_timeout
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._claiming = True
        self._reconnect = reconnect or Reconnect(observer)
        self._settler = Settler(queue, self._reconnect, observer)
        self._runner = runner(self._settler)
        self._claimer = Claimer(
            queue, self._runner, self._settler, self._reconnect, observer, burst=burst, max_tasks=max_tasks
        )

        self._upkeep = upkeep(self)

    @property
    def running(self) -> int:
        """The number of running tasks (or batches)."""
        return self._runner.running

    def running_tasks(self) -> list[RunningTask]:
        """Return the running tasks, oldest first, except inline ones; call it on the event loop."""
        return [
            RunningTask(delivery.label or id_in(delivery.raw), seconds, stack_of(task), delivery.function)
            for task, delivery, seconds in self._runner.underway()
        ]

    def longest(self, limit: int) -> list[tuple[Delivery, float]]:
        """Return up to `limit` of the running tasks with their ages in seconds, oldest first, except inline ones."""
        return [(delivery, seconds) for _, delivery, seconds in islice(self._runner.underway(), limit)]

    @property
    def claiming(self) -> bool:
        """True until nothing more will be claimed."""
        return self._claiming and not self._stopping.is_set()

    @property
    def away(self) -> bool:
        """True while the queue is unreachable."""
        return self._reconnect.away

    @property
    def in_flight(self) -> int:
        """The number of claimed, unsettled tasks."""
        return len(self._runner.held()) + self._settler.waiting

    def stop(self) -> None:
        """Stop gracefully: claim no more, release unstarted tasks, let the others finish."""
        self._stopping.set()
        self._claimer.stop()

    def cancel(self) -> None:
        """Stop at once: cancel and release running tasks."""
        self.stop()
        self._hurry.set()

    async def run(self) -> None:
        """Work until stopped or done. Closing the queue then returns the tasks in flight. Raises Refused."""
        claiming = asyncio.create_task(self._claimer.run(), name="claimer")
        roles = [
            asyncio.create_task(role(), name=getattr(role, "__qualname__", "role"))
            for role in (self._settler.run, self._runner.run, self._claimer.return_stalled, *self._upkeep)
        ]
        ending = asyncio.create_task(self._end(claiming), name="ending")
        try:
            await asyncio.wait({ending, *roles}, return_when=asyncio.FIRST_COMPLETED)
            for task in (ending, *roles):
                if task.done():
                    task.result()  # raises what ended it
        finally:
            self._claimer.stop()
            self._runner.cancel()
            for task in (claiming, ending, *roles):
                task.cancel()
            await asyncio.wait({claiming, ending, *roles})
            if self._execution is not None:
                self._execution.close()

    async def _end(self, claiming: asyncio.Task[None]) -> None:
        """Wait for the end of claiming, then for the claimed tasks. Raises Refused."""
        await self._until(self._stopping, claiming)
        self._claiming = False
        if not self._stopping.is_set():
            claiming.result()
            # A burst, or a number of tasks: all that is claimed is run.
            await self._until(self._stopping, self._drained())
        if self._stopping.is_set():
            await self._shut_down(claiming)

    async def _shut_down(self, claiming: asyncio.Task[None]) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + self._shutdown_timeout
        if not self._reconnect.away:
            await self._within(_CLAIM_ENDS, claiming)
        if self._reconnect.away or not claiming.done():
            # The queue does not answer: pending tasks stay in flight, for others to recover.
            claiming.cancel()
            self._runner.take_back()
        else:
            await self._within(_LAST_WORDS, self._claimer.hand_back())
        await self._until(self._hurry, self._drained(), end)
        last = clock() + _FAREWELL
        if not self._runner.idle:
            self._runner.cancel()
            await self._within(_LAST_WORDS, self._idle())
        if not self._reconnect.away:
            await self._within(max(0.0, last - clock()), self._settler.flush())

    async def _drained(self) -> None:
        """Wait until all started tasks have finished and all outcomes are written."""
        await self._idle()
        await self._settler.flush()

    async def _idle(self) -> None:
        while not self._runner.idle:
            self._runner.progress.clear()
            await self._runner.progress.wait()

    async def _until(self, event: asyncio.Event, work: Awaitable[None], end: float | None = None) -> None:
        """Wait for `work`, but only until `event` is set or the loop's clock shows `end`."""
        seconds = None if end is None else max(0.0, end - asyncio.get_running_loop().time())
        await first_of(work, event.wait(), seconds=seconds)

    async def _within(self, seconds: float, work: Awaitable[None]) -> None:
        """Wait for `work`, at most `seconds`. Raises its exception."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=seconds)
        if task.done() and not task.cancelled():
            task.result()
        else:
            task.cancel()
