"""Runners: they take a slot, then start a claimed task in it. The one here calls plain functions on the event loop."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from itertools import islice, takewhile
from time import perf_counter
from typing import Any, ClassVar

from redis_worker.engine.contexts import Contexts
from redis_worker.engine.guard import escaped
from redis_worker.engine.handler import Calling
from redis_worker.engine.pace import HORIZON, Pace
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.vocabulary.task import RUNNING, Delivery, Outcome, Turn

# Tasks claimed ahead go to other workers, which may have free slots, when none has been started for this time, in
# seconds, or for a shorter one where tasks are short. Where slots are shared, the others need not be other workers: a
# task waits longer before it is sent back.
PATIENCE, _SHARED_PATIENCE = HORIZON, 0.25
# The most running tasks to look at, the oldest first: of thousands of slots, slow tasks hold a small part.
_OLDEST = 32
# After so many tasks in one claim, more are waiting: the next claim is sent before the first of them is started.
MANY = 8
# Inline calls hold the event loop for this long at a stretch, in seconds; then the loop turns.
STRETCH = 0.001
# Turns of the loop between stretches: a reply passes through several coroutines, one a turn, before the next command.
TURNS = 6


class Runner(ABC):
    """Holds tasks that are claimed and not started (`pending`), and starts them as slots come free."""

    _starts_at_once: ClassVar = True
    """False if a task waits for the one before even where slots are free."""

    def __init__(self, settler: Settler, concurrency: int, shared: Slots | None = None) -> None:
        """`shared` slots are shared with other runners: a task, or a batch, takes one of them as well."""
        self._settler = settler
        self._concurrency = concurrency
        self._shared = shared
        self._patience = PATIENCE if shared is None else _SHARED_PATIENCE
        self._pace = Pace()
        self._contexts = Contexts()
        self._pending: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._touched = 0.0
        """The time when a task was last started, by perf_counter."""
        self._seen = 0.0
        """That time at the last look for late tasks."""
        self.behind = asyncio.Event()
        """Set when tasks became pending that did not start at once; the code that waits for it clears it."""
        self.progress = asyncio.Event()
        """Set when tasks have finished; the code that waits for it clears it."""

    @property
    @abstractmethod
    def running(self) -> int:
        """How many slots are taken."""

    @property
    def idle(self) -> bool:
        """True when nothing is pending and nothing runs."""
        return not self._pending and not self.running

    @property
    def pending(self) -> int:
        """How many tasks wait for a slot; those that a process has in hand are not among them."""
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """How many tasks are claimed and do not run yet."""
        return len(self._pending)

    @property
    def shares_slots(self) -> bool:
        """True if other runners may hold the slots."""
        return self._shared is not None

    def room(self, ahead: bool) -> int:
        """Return how many tasks to claim: one for each free slot and, with `ahead`, those sure to start soon after."""
        slots, running, waiting = self._concurrency, self.running, self.waiting
        if self._shared is not None:
            slots = min(slots, running + self._shared.free)
        beyond = waiting - (slots - running if self._starts_at_once else 0)
        surplus = self._pace.ahead(slots) if ahead else 0  # at most, and quickly found
        if ahead and beyond <= surplus * 3 // 4:
            surplus = self._ahead(slots)
        if beyond > surplus * 3 // 4:
            return 0  # a few large claims cost less than many small ones
        # Where other runners have taken all shared slots, one task waits in the queue for a slot, for the rest.
        least = 1 if slots < self._concurrency and not waiting else 0
        return max(least, slots - running + surplus - waiting)

    def _ahead(self, slots: int) -> int:
        """Return how many tasks to claim ahead of `slots`; those that slow tasks hold start nothing soon."""
        if self._stands_still(PATIENCE):
            return 0
        slow = self._slow()
        return self._pace.ahead(max(0, slots - slow), is_mixed=slow > 0)

    def _stands_still(self, patience: float) -> bool:
        """Return True if no task has been started for `patience`, or for as long as a slow task takes."""
        is_long = self._pace.long if self._shared is None else patience
        return perf_counter() - self._touched > min(patience, is_long)

    def _slow(self) -> int:
        """Return how many slots are held by tasks that run for longer than those before."""
        long = self._pace.long
        oldest = islice(self.underway(), _OLDEST)
        return sum(1 for _ in takewhile(lambda task: task[2] > long, oldest))

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Start `deliveries` in their order as slots come free."""
        if not self._pending:
            self._touched = perf_counter()
        self._pending.extend(deliveries)
        self._arrived.set()

    def held(self) -> list[Delivery]:
        """Return the tasks that are pending or running."""
        return list(self._pending)

    def underway(self) -> Iterator[tuple[Any, Delivery, float]]:
        """Yield running deliveries with what runs them and ages in seconds, oldest first; never inline ones."""
        return iter(())

    def late(self) -> int:
        """Return how many pending tasks will not start soon: all, if none has been started for too long.

        The last ones, if slow tasks have taken slots since they were claimed.
        """
        pending, before, self._seen = self.pending, self._seen, self._touched
        # Not at the first look after a moment in which this whole process stood still.
        if pending and before == self._seen and self._stands_still(self._patience):
            return pending
        pending -= max(0, self._concurrency - self.running)  # threads are about to take these
        if pending <= 0 or self._shared is not None or not (slow := self._slow()):
            return 0
        return max(0, pending - self._pace.ahead(self._concurrency - slow) // 2)

    def take_back(self, count: int | None = None) -> list[Delivery]:
        """Remove pending tasks, all or the last `count`, and return them in their order."""
        taken = deque[Delivery]()
        with suppress(IndexError):  # one by one: threads may take tasks meanwhile
            while count is None or len(taken) < count:
                taken.appendleft(self._pending.pop())
        if taken:
            # They have waited this long for a slot: claim less far ahead.
            self._pace.note(perf_counter() - self._touched)
        return [*taken]

    @abstractmethod
    async def run(self) -> None:
        """Start tasks, until cancelled."""

    def stop(self, is_meant: Callable[[Delivery], bool]) -> None:  # noqa: B027 - threads and inline calls go on
        """End the running tasks for which `is_meant` returns True, as far as they can be ended, once each."""

    def join(self, whole: Runner) -> None:
        """Be a part of the runner `whole`: what all of its parts measure and report is one."""
        self._pace, self.progress, self.behind = whole._pace, whole.progress, whole.behind

    def cancel(self) -> None:  # noqa: B027 - inline calls cannot be cancelled
        """Cancel the running tasks that can be cancelled; they get no outcome."""

    async def _some_pending(self) -> None:
        while not self._pending:
            self._arrived.clear()
            await self._arrived.wait()


class InlineRunner(Runner):
    """Calls the processor on the event loop, one task after the other."""

    _starts_at_once: ClassVar = False

    def __init__(self, handler: Calling, settler: Settler, concurrency: int) -> None:
        super().__init__(settler, concurrency)
        self._handler = handler
        self._turn = Turn()
        self._contexts = copy_context().run(self._turning)

    def _turning(self) -> Contexts:
        RUNNING.set(self._turn)  # one object for all contexts: a new value would make each task's context another one
        return Contexts()

    @property
    def running(self) -> int:
        return 0

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Start `deliveries` at once where nothing is pending: a lone task waits for no turn of the loop."""
        is_lone = not self._pending and len(deliveries) < MANY
        self._pending.extend(deliveries)
        if is_lone:
            self._stretch()
        if self._pending:
            self._arrived.set()

    async def run(self) -> None:
        while True:
            await self._some_pending()
            self._stretch()
            for _ in range(TURNS):
                await asyncio.sleep(0)

    def _stretch(self) -> None:
        """Call the processor for as many pending tasks as fit into a stretch."""
        outcomes: list[Outcome] = []
        now = started = perf_counter()
        while self._pending and now - started < STRETCH:
            context = self._contexts.fresh()
            now = context.run(self._run_in, context, outcomes, now, started + STRETCH)
        self._touched = now
        if outcomes:
            self._pace.note((now - started) / len(outcomes))
            self._settler.add(outcomes)
            self.progress.set()

    def _run_in(self, context: Context, outcomes: list[Outcome], now: float, end: float) -> float:
        """Call the processor in `context` until a task changes it, or `end`; return the time, by perf_counter.

        A task begins when the one before ends: to ask for the time takes longer than some tasks, so each asks once.
        A task that changes nothing leaves the context as fresh as it was: a new one for each costs more than this look.
        """
        pending, handle, is_changed = self._pending, self._handler.handle_here, self._contexts.is_changed
        turn = self._turn
        while True:
            turn.delivery = delivery = pending.popleft()
            if not delivery.receipt.lost:  # as in _pop
                try:
                    outcome = handle(delivery, None, now)
                except Exception as error:
                    outcome = escaped(delivery, error)
                outcomes.append(outcome)
                now = now + outcome.seconds if outcome.seconds else perf_counter()
            if now >= end or not pending or is_changed(context):
                turn.delivery = None
                return now
