"""The runner of plain functions: threads that take the next task, and leave its outcome, without the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from redis_worker.engine.awaitables import discard
from redis_worker.engine.execution import within
from redis_worker.engine.guard import escaped
from redis_worker.engine.handler import Calling
from redis_worker.engine.runner import Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.vocabulary.task import Delivery, Outcome


class Caller:
    """A thread that calls the processor; it writes these fields, and the event loop reads them."""

    def __init__(self, resolve: Callable[[Caller, Any, float], Any], timeout: float | None) -> None:
        self.resolve = partial(resolve, self)
        self.timeout = timeout
        """The time limit of the task that it runs, in seconds."""
        self.id: str | None = None
        """The id of the task that it runs, once the task is read."""
        self.ident = 0
        """The thread, once it has begun."""
        self.call: tuple[Delivery, float] | None = None
        """The task that it runs, and since when, by perf_counter."""
        self.awaiting: asyncio.Task[Any] | None = None
        """The asyncio task of an awaitable that the processor returned; the thread, and so its slot, waits for it."""


class ThreadRunner(Runner):
    """Runs tasks in up to `concurrency` daemon threads of its own, started on demand: a thread is a slot.

    A thread that never ends must not keep the program from its exit, as those of concurrent.futures do. Outcomes reach
    the event loop in batches: those that come while it is busy wake it once.
    """

    def __init__(self, handler: Calling, settler: Settler, concurrency: int, shared: Slots | None = None) -> None:
        super().__init__(settler, concurrency, shared)
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._slots = Slots(concurrency)
        """The slots of this runner; used beside shared ones only."""
        self._ready = self._pending if shared is None else deque[Delivery]()
        """The tasks that threads may take."""
        self._held: dict[Delivery, None] = {}
        """The tasks without an outcome, in the order in which they came."""
        self._leftover: set[Delivery] = set()
        """The tasks whose calls go on after their time limit."""
        self._finished: deque[tuple[Delivery, Outcome | None]] = deque()
        self._woken = False
        """True between waking the loop and its look at `_finished`."""
        self._callers: list[Caller] = []
        self._idle: deque[None] = deque()
        """An entry for each thread that waits, or is about to wait, for a wake."""
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        """True has a thread look for tasks, False ends it."""

    @property
    def running(self) -> int:
        return min(self._concurrency, len(self._held) + len(self._leftover) - len(self._pending))

    @property
    def idle(self) -> bool:
        return not self._held and not self._leftover

    def add(self, deliveries: Sequence[Delivery]) -> None:
        self._held.update(dict.fromkeys(deliveries))
        super().add(deliveries)
        if self._shared is None and not self._handler.cancelled:
            self._wake(len(deliveries))

    def held(self) -> list[Delivery]:
        return list(self._held)

    def take_back(self, count: int | None = None) -> list[Delivery]:
        taken = super().take_back(count)
        for delivery in taken:
            del self._held[delivery]
        return taken

    def underway(self) -> Iterator[tuple[Caller, Delivery, float]]:
        calls = [(caller, call) for caller in self._callers if (call := caller.call) is not None]
        now = perf_counter()
        for caller, (delivery, since) in sorted(calls, key=lambda item: item[1][1]):
            yield caller, delivery, now - since

    async def run(self) -> None:
        """Start tasks as shared slots come free, and end their time limits, until cancelled."""
        await asyncio.gather(self._share(), self._limit())

    def cancel(self) -> None:
        """Forget the tasks without an outcome, and end the threads as they become idle."""
        self._handler.cancelled = True
        self._hand_over()
        while self._ready:
            self._ready.popleft()
            self._give_back()
        self._pending.clear()
        self._held.clear()
        self._leftover.clear()
        for caller in self._callers:
            self._wakes.put(False)
            if caller.awaiting is not None:
                caller.awaiting.cancel()
        self._callers = []
        self.progress.set()

    async def _share(self) -> None:
        """Hand a task to the threads whenever a shared slot is free for it."""
        if self._shared is None:
            await self._loop.create_future()
            return
        while True:
            await self._slots.take()
            await self._some_pending()
            await self._shared.take()
            if self._pending:  # the tasks may be handed back meanwhile
                self._touched = perf_counter()
                self._ready.append(self._pending.popleft())
                self._wake(1)
            else:
                self._give_back()

    def _give_back(self) -> None:
        if self._shared is not None:
            self._slots.give_back()
            self._shared.give_back()

    async def _limit(self) -> None:
        """Answer tasks that exceed their time limit, if there is one; their threads go on."""
        shortest = self._handler.timeout
        while shortest is not None:
            if not self._held:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            self._hand_over()  # those that ended in time
            now = perf_counter()
            end = now + shortest
            for caller in self._callers:
                call = caller.call
                if call is None or call[0] not in self._held or caller.awaiting is not None:
                    continue
                delivery, since = call
                limit = caller.timeout
                if limit is None:
                    continue
                if now - since < limit:
                    end = min(end, since + limit)
                    continue
                id = caller.id
                if caller.call is call:  # otherwise it has ended just now
                    del self._held[delivery]
                    self._leftover.add(delivery)
                    self._settle([self._handler.over_time(delivery, id)])
            await asyncio.sleep(end - now)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._pace.note(outcome.seconds)
        self._settler.add(outcomes)
        self.progress.set()

    def _hand_over(self) -> None:
        """Take the outcomes from the threads."""
        self._woken = False  # before the look: calls that end from here on wake the loop again
        finished, held, outcomes = self._finished, self._held, list[Outcome]()
        while finished:
            delivery, outcome = finished.popleft()
            self._give_back()
            if delivery not in held:
                self._leftover.discard(delivery)
                continue
            del held[delivery]
            if outcome is not None:
                outcomes.append(outcome)
        if outcomes:
            self._settle(outcomes)
        self.progress.set()

    def _wake(self, count: int) -> None:
        """Have up to `count` more threads look for tasks."""
        for _ in range(min(count, self._concurrency)):
            try:
                self._idle.pop()
            except IndexError:
                if len(self._callers) == self._concurrency or not self._start_thread():
                    return
            else:
                self._wakes.put(True)

    def _start_thread(self) -> bool:
        """Start a thread. Returns False if the system allows no more: those that exist take the tasks."""
        caller, name = Caller(self._resolve, self._handler.timeout), f"redis-worker_{len(self._callers)}"
        try:
            threading.Thread(target=self._work, args=(caller,), name=name, daemon=True).start()
        except RuntimeError:
            return False
        self._callers.append(caller)
        return True

    def _work(self, caller: Caller) -> None:
        """Run tasks until a wake ends this thread. The hot path."""
        caller.ident = threading.get_ident()
        ready, finished, fresh, handle = self._ready, self._finished, self._contexts.fresh, self._handler.handle_here
        while True:
            try:
                delivery = ready.popleft()
            except IndexError:
                if not self._waits():
                    return
                continue
            self._touched = now = perf_counter()
            caller.id = None
            caller.call = delivery, now
            outcome = None
            if not delivery.receipt.lost:  # otherwise other workers own it by now
                try:
                    outcome = fresh().run(handle, delivery, caller)
                except Exception as error:
                    outcome = escaped(delivery, error)
                except BaseException:  # noqa: S110 - the runner was cancelled
                    pass
            finished.append((delivery, outcome))
            caller.call = None
            del delivery, outcome  # an idle thread holds none
            if not self._wake_loop():
                return

    def _wake_loop(self) -> bool:
        """Have the event loop take outcomes. Returns False if it is closed: nothing waits for them."""
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._hand_over)
            except RuntimeError:
                return False
        return True

    def _waits(self) -> bool:
        """Wait for tasks. Returns False if this thread is to end."""
        self._idle.append(None)
        if self._ready:  # they came before the entry, and woke others at most
            try:
                self._idle.pop()
            except IndexError:
                pass  # a wake is on its way
            else:
                return True
        return self._wakes.get()

    def _resolve(self, caller: Caller, value: Any, started: float) -> Any:
        """Return what `value` becomes when it is awaited on the event loop, within the rest of the time limit."""
        timeout = caller.timeout
        left = None if timeout is None else max(0.0, started + timeout - perf_counter())
        error, value = asyncio.run_coroutine_threadsafe(self._awaited(caller, value, left), self._loop).result()
        if error is not None:
            raise error
        return value

    async def _awaited(self, caller: Caller, value: Any, left: float | None) -> tuple[BaseException | None, Any]:
        """Return the error or the value; a Task would pass some errors on to the event loop."""
        if self._handler.cancelled:
            discard(value)
            return asyncio.CancelledError(), None
        caller.awaiting = asyncio.current_task()
        try:
            return None, await within(left, value)
        except BaseException as error:
            return error, None
        finally:
            caller.awaiting = None
