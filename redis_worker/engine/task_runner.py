"""The runners of asyncio tasks: for a coroutine each, or (batches.py) for a batch."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from inspect import CORO_CREATED, getcoroutinestate, iscoroutine
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from redis_worker.engine.guard import escaped
from redis_worker.engine.runner import Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.vocabulary.task import Delivery, Outcome

CallT = TypeVar("CallT", bound=Hashable)


class Cancellable(Protocol):
    """A handler, which has to know that its calls are cancelled by the runner."""

    cancelled: bool


class CallRunner(Runner, Generic[CallT]):
    """Runs calls as asyncio tasks, as many at once as there are slots; a call handles one task, or a batch of them."""

    _least = 1
    """The number of pending tasks for which a call does not wait for more."""

    def __init__(self, guard: Cancellable, settler: Settler, concurrency: int, shared: Slots | None = None) -> None:
        super().__init__(settler, concurrency, shared)
        self._guard = guard
        self._calls: dict[CallT, tuple[asyncio.Task[None], float]] = {}
        """The calls that run, and since when, by perf_counter; in the order of their start."""

    @property
    def running(self) -> int:
        return len(self._calls)

    async def run(self) -> None:
        create_task, fresh = asyncio.get_running_loop().create_task, self._contexts.fresh
        calls, pending, shared = self._calls, self._pending, self._shared
        while True:
            while len(calls) >= self._concurrency:
                self.progress.clear()
                await self.progress.wait()
            if len(pending) < self._least:
                await self._some_pending()
            if shared is not None and not shared.take_now():
                await shared.take()  # the tasks may be handed back meanwhile
            if call := self._pop():
                # `_touched` is the time when it was popped: asking for the time once more would cost every task.
                calls[call] = create_task(self._work(call), context=fresh()), self._touched
            elif shared is not None:
                shared.give_back()
            del call  # not held while this waits

    def held(self) -> list[Delivery]:
        return [*super().held(), *(delivery for call in self._calls for delivery in self._tasks_of(call))]

    def underway(self) -> Iterator[tuple[asyncio.Task[None], Delivery, float]]:
        now = perf_counter()
        for call, (task, since) in self._calls.items():
            for delivery in self._tasks_of(call):
                yield task, delivery, now - since

    def cancel(self) -> None:
        self._guard.cancelled = True
        for task, _ in self._calls.values():
            task.cancel()

    @abstractmethod
    def _tasks_of(self, call: CallT) -> Iterable[Delivery]:
        """Return the tasks of a call."""

    @abstractmethod
    def _pop(self) -> CallT | None:
        """Return the next call to start, and note the time. Tasks that other workers own by now are dropped."""

    @abstractmethod
    async def _work(self, call: CallT) -> None:
        """Run a call to its end: `_finish` takes its outcomes, and `_end` frees its slot."""

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        self._pace.note(outcomes[0].seconds)
        self._settler.add(outcomes)

    def _end(self, call: CallT) -> None:
        del self._calls[call]
        if self._shared is not None:
            self._shared.give_back()
        self.progress.set()


class Handling(Cancellable, Protocol):
    """Handles a task as a coroutine."""

    async def handle(self, delivery: Delivery) -> Outcome:
        """Return the outcome of a task."""
        ...


class TaskRunner(CallRunner[Delivery]):
    """Runs each task as an asyncio task."""

    def __init__(self, handler: Handling, settler: Settler, concurrency: int, shared: Slots | None = None) -> None:
        super().__init__(handler, settler, concurrency, shared)
        self._handler = handler
        self._stopped: set[Delivery] = set()
        """The tasks that were cancelled and have not ended."""

    def stop(self, is_meant: Callable[[Delivery], bool]) -> None:
        self._stopped.intersection_update(self._calls)
        for delivery, (task, _) in self._calls.items():
            # The handler of one that has not begun looks itself.
            if delivery not in self._stopped and _has_begun(task) and is_meant(delivery):
                self._stopped.add(delivery)
                task.cancel()

    def _tasks_of(self, call: Delivery) -> Iterable[Delivery]:
        return (call,)

    def _pop(self) -> Delivery | None:
        self._touched = perf_counter()
        pending = self._pending
        while pending:
            delivery = pending.popleft()
            if not delivery.receipt.lost:
                return delivery
        return None

    async def _work(self, call: Delivery) -> None:
        try:
            try:
                outcome = await self._handler.handle(call)
            except Exception as error:
                outcome = escaped(call, error)
            self._finish((outcome,))
        finally:
            self._end(call)


def _has_begun(task: asyncio.Task[None]) -> bool:
    coroutine = task.get_coro()
    return iscoroutine(coroutine) and getcoroutinestate(coroutine) != CORO_CREATED
