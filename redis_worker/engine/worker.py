"""The worker: claimer, runner and settler at work together, and how they come to an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from redis_worker.engine.claimer import Claimer
from redis_worker.engine.execution import Execution
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.runner import Runner, Running
from redis_worker.engine.running import RunningTask
from redis_worker.engine.settler import Settler
from redis_worker.engine.waiting import first_of
from redis_worker.ports import Observer, Queue

# How long handing back may take, and how long cancelled coroutines get to clean up, in seconds.
_LAST_WORDS = 2.0
# How long that and the writing of the last results may take together, in seconds.
_FAREWELL = 3.0
# How long a claim that is under way may still take: it is never cancelled while it waits on the server.
_CLAIM_ENDS = 3.0


class Worker:
    """Works on a queue until it is stopped or, with `burst`, until the queue is empty."""

    def __init__(
        self,
        queue: Queue,
        runner: Callable[[Settler], Runner],
        execution: Execution | None,
        observer: Observer,
        *,
        shutdown_timeout: float,
        burst: bool = False,
        max_tasks: int | None = None,
        reconnect: Reconnect | None = None,
    ) -> None:
        """`runner` builds the runner; `execution`, if its processor needs one, is closed at the end.

        Workers that share a server may share a `reconnect`.
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

    @property
    def running(self) -> int:
        """How many tasks run just now."""
        return self._runner.running

    def running_tasks(self) -> list[RunningTask]:
        """Those of them that can be seen, oldest first; to be called on the event loop."""
        return self._runner.running_tasks()

    def longest(self, limit: int) -> list[Running]:
        """Up to `limit` of the tasks that run, those that have run longest first; inline ones are not seen."""
        return self._runner.longest(limit)

    @property
    def claiming(self) -> bool:
        """True until nothing more is to be claimed."""
        return self._claiming and not self._stopping.is_set()

    @property
    def away(self) -> bool:
        """True while the queue cannot be reached."""
        return self._reconnect.away

    @property
    def in_flight(self) -> int:
        """How many tasks are claimed and not settled."""
        return len(self._runner.held()) + self._settler.waiting

    def stop(self) -> None:
        """Stop gracefully: claim no more, hand back what is not started, let the rest finish."""
        self._stopping.set()
        self._claimer.stop()

    def cancel(self) -> None:
        """Stop at once: what still runs is cancelled and handed back."""
        self.stop()
        self._hurry.set()

    async def run(self, upkeep: Iterable[Callable[[], Coroutine[Any, Any, None]]] = ()) -> None:
        """Work, with `upkeep` running beside it. The queue hands back what is in flight afterwards. Raises Refused."""
        claiming = asyncio.create_task(self._claimer.run(), name="claimer")
        roles = [
            asyncio.create_task(role(), name=getattr(role, "__qualname__", "role"))
            for role in (self._settler.run, self._runner.run, *upkeep)
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
        """Wait for the claims to end, for whatever reason, and see the rest through. Raises Refused."""
        await self._until(self._stopping, claiming)
        self._claiming = False
        if not self._stopping.is_set():
            claiming.result()
            # Nothing more is to be claimed, and all that was is run: a burst, or a number of tasks.
            await self._until(self._stopping, self._drained())
        if self._stopping.is_set():
            await self._shut_down(claiming)

    async def _shut_down(self, claiming: asyncio.Task[None]) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + self._shutdown_timeout
        if not self._reconnect.away:
            await self._within(_CLAIM_ENDS, claiming)
        if self._reconnect.away or not claiming.done():
            # Nothing is heard of the queue: what is pending stays in flight, for others to recover.
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
        """Everything started has finished, and everything finished is written."""
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
        """Wait for `work`, for so long at the most. Raises what it raised."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=seconds)
        if task.done() and not task.cancelled():
            task.result()
        else:
            task.cancel()
