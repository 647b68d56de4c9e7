"""The runner of functions that run in different places: each task in its own, and one number of slots for all."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from time import perf_counter
from typing import Any, Protocol

from redis_worker.engine.runner import STRETCH, TURNS, Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.task_runner import Handling, TaskRunner
from redis_worker.engine.thread_runner import ThreadRunner
from redis_worker.vocabulary.processor import Execution
from redis_worker.vocabulary.task import Delivery

# Inline calls that are begun together.
_MOST_INLINE = 32

_NUMBER = attrgetter("number")


class Placing(Handling, Protocol):
    """Handles a task as a coroutine, and knows which tasks run elsewhere."""

    def place(self, delivery: Delivery) -> Execution:
        """Return where the call of a task is made; "async" where it cannot be run. Raises nothing."""
        ...


class GrantedThreads(ThreadRunner):
    """Threads that begin only when there are slots for them, and then take one task after the other."""

    @property
    def running(self) -> int:
        """How many threads are awake, each of which holds a slot: a task, or the search for one."""
        return max(0, len(self._callers) - len(self._idle))

    @property
    def touched(self) -> float:
        """The time of the last start, by perf_counter."""
        return self._touched

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Take tasks, for threads that are awake and for `grant`."""
        self._held.update(dict.fromkeys(deliveries))
        self._pending.extend(deliveries)
        self._arrived.set()

    def grant(self, slots: int) -> None:
        """Have up to `slots` more threads begin, for tasks that no thread is about to take."""
        searching = self.running + len(self._pending) + len(self._finished) - len(self._held) - len(self._leftover)
        if (count := min(slots, len(self._pending) - max(0, searching))) > 0:
            self._wake(count)

    def _waits(self) -> bool:
        # The slot may go to another task from here on: the event loop looks whether one came for a thread meanwhile.
        self._idle.append(None)
        return self._wake_loop() and self._wakes.get()


class MixedRunner(TaskRunner):
    """Starts each task in its turn, where its function belongs: coroutines here, the others by other runners.

    Those get a task when there is a slot for it. Tasks for threads that follow each other go there together: a thread
    that has ended one takes the next.
    """

    def __init__(
        self, handler: Placing, settler: Settler, concurrency: int, others: Mapping[Execution, Runner]
    ) -> None:
        super().__init__(handler, settler, concurrency)
        self._place = handler.place
        self._others = others
        self._parts = tuple(others.values())
        threads = others.get("thread")
        self._threads = threads if isinstance(threads, GrantedThreads) else None
        self._unthreaded = tuple(part for part in self._parts if part is not threads)
        for part in self._parts:
            part.join(self)

    @property
    def running(self) -> int:
        count = len(self._calls)
        for part in self._unthreaded:
            count += part.running + part.pending
        return count if self._threads is None else count + self._threads.running

    @property
    def idle(self) -> bool:
        return not self._pending and not self._calls and all(part.idle for part in self._parts)

    @property
    def pending(self) -> int:
        return super().pending + (0 if self._threads is None else self._threads.pending)

    @property
    def waiting(self) -> int:
        return self.pending

    def room(self, ahead: bool) -> int:
        self._note_threads()
        return super().room(ahead)

    def late(self) -> int:
        self._note_threads()
        return super().late()

    def _note_threads(self) -> None:
        if self._threads is not None:
            self._touched = max(self._touched, self._threads.touched)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Start `deliveries` at once where nothing is pending: a lone task waits for no turn of the loop."""
        is_first = not self._pending
        super().add(deliveries)
        if is_first and self._start():
            self.progress.set()

    def held(self) -> list[Delivery]:
        return [*super().held(), *(delivery for part in self._parts for delivery in part.held())]

    def underway(self) -> Iterator[tuple[Any, Delivery, float]]:
        each = (super().underway(), *(part.underway() for part in self._parts))
        return heapq.merge(*each, key=lambda running: -running[2])

    def take_back(self, count: int | None = None) -> list[Delivery]:
        taken = super().take_back(count)
        if count is None:
            return sorted((delivery for part in self._parts for delivery in part.take_back()), key=_NUMBER) + taken
        return taken if self._threads is None else self._threads.take_back(count - len(taken)) + taken

    def stop(self, is_meant: Callable[[Delivery], bool]) -> None:
        super().stop(is_meant)
        for part in self._parts:
            part.stop(is_meant)

    def cancel(self) -> None:
        super().cancel()
        for part in self._parts:
            part.cancel()

    async def run(self) -> None:
        await asyncio.gather(self._start_all(), *(part.run() for part in self._parts))

    async def _start_all(self) -> None:
        while True:
            if not self.pending:
                await self._some_pending()
            if self._start():
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            elif self.pending:
                self.progress.clear()
                await self.progress.wait()

    def _start(self) -> bool:
        """Start pending tasks for which there are slots, in their order; inline calls hold the loop for a stretch.

        Returns True if the stretch is over before that.
        """
        create_task, fresh = asyncio.get_running_loop().create_task, self._contexts.fresh
        pending, threads = self._pending, self._threads
        end = perf_counter() + STRETCH
        free = self._concurrency - self.running
        while True:
            if threads is not None and free > 0 and threads.pending:
                threads.grant(free)
                free = self._concurrency - self.running
            if not pending or self._guard.cancelled:
                return False
            if (now := perf_counter()) >= end:
                return True
            place = self._place(pending[0])
            if free <= 0 and (place != "thread" or threads is None or not threads.running):
                return False
            run = self._take(place, free)
            self._touched = now
            if place == "async":
                for delivery in run:
                    self._calls[delivery] = create_task(self._work(delivery), context=fresh()), now
                free -= len(run)
            else:
                self._others[place].add(run)
                if place != "thread":
                    free = self._concurrency - self.running

    def _take(self, place: Execution, free: int) -> list[Delivery]:
        """Remove the next pending tasks that run in `place`, as many as it takes together."""
        most = len(self._pending) if place == "thread" else _MOST_INLINE if place == "inline" else free
        run: list[Delivery] = []
        while True:
            delivery = self._pending.popleft()
            if not delivery.receipt.lost:
                run.append(delivery)
            if not self._pending or len(run) >= most or self._place(self._pending[0]) != place:
                return run
