"""The runner of plain functions in processes: each has several short tasks in hand, or one that is long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from redis_worker.engine.child import Answered, Child, packed
from redis_worker.engine.execution import Encode, refusal
from redis_worker.engine.guard import escaped
from redis_worker.engine.handler import Handler
from redis_worker.engine.pace import HORIZON
from redis_worker.engine.processes import check_processor, died
from redis_worker.engine.runner import Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.waiting import happens
from redis_worker.vocabulary.task import Delivery, Outcome

# The most tasks in the hand of a process; no more are added once they have this many bytes.
_MOST = 256
_MOST_BYTES = 64 * 1024
# The answers of processes that have more tasks in hand are collected at this interval, in seconds: to take and to write
# each alone takes more time than a short task.
_COLLECT_EVERY = HORIZON / 2


class _Task(NamedTuple):
    """A task in the hand of a process."""

    number: int
    delivery: Delivery
    id: str


class _Slot:
    """A slot and its process."""

    def __init__(self, runner: ProcessRunner) -> None:
        self._runner = runner
        self.child: Child | None = None
        self.hand: deque[_Task] = deque()
        """The tasks that the process has and has not answered; it runs the first, or is about to."""
        self.since = 0.0
        """The time since which it runs that one, by perf_counter."""
        self.is_fed = False
        """True once the process was sent its first task."""
        self.is_killed = False
        """True from its kill at a time limit until it has ended."""

    def answered(self, answers: list[Answered]) -> None:
        self._runner.answered(self, answers)

    def died(self) -> None:
        self._runner.died(self)


class ProcessRunner(Runner):
    """Runs tasks in child processes, one for each slot: a crash, a hang or a time limit affects the task that runs.

    Each process leads a group that ends with it, with the programs that the function started.
    """

    def __init__(
        self,
        handler: Handler,
        settler: Settler,
        concurrency: int,
        processor: Callable[[Any], Any],
        tries: int,
        encode: Encode,
    ) -> None:
        """`tries` is how often a task may be the one that runs when its process dies. Raises ConfigurationError."""
        super().__init__(settler, concurrency)
        check_processor(processor)
        self._handler = handler
        self._processor = processor
        self._encode = encode
        self._tries = tries
        self._slots = [_Slot(self) for _ in range(concurrency)]
        self._deaths: dict[Delivery, int] = {}
        self._number = 0
        self._outcomes: list[Outcome] = []

    @property
    def running(self) -> int:
        return sum(1 for slot in self._slots if slot.hand or slot.is_killed)

    @property
    def idle(self) -> bool:
        return not self._pending and not self._outcomes and not self.running

    @property
    def waiting(self) -> int:
        return super().waiting + sum(len(slot.hand) - 1 for slot in self._slots if slot.hand)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        super().add(deliveries)
        self._feed()

    def held(self) -> list[Delivery]:
        return [*super().held(), *(task.delivery for slot in self._slots for task in slot.hand)]

    def underway(self) -> Iterator[tuple[None, Delivery, float]]:
        now = perf_counter()
        for slot in sorted(self._slots, key=lambda slot: slot.since):
            if slot.hand:
                yield None, slot.hand[0].delivery, now - slot.since

    def take_back(self) -> list[Delivery]:
        self._put_back(self._slots)
        taken = super().take_back()
        for delivery in taken:
            self._deaths.pop(delivery, None)
        return taken

    def cancel(self) -> None:
        """Kill all processes; the tasks that run get no outcome."""
        self._handler.cancelled = True
        self._flush()
        self._pending.clear()
        for slot in self._slots:
            slot.hand.clear()
            slot.is_killed = False
            if slot.child is not None:
                slot.child.kill()
        for slot in self._slots:
            if slot.child is not None:
                slot.child.close()
                slot.child = None
        self.progress.set()

    async def run(self) -> None:
        """Look after the processes, until cancelled."""
        while True:
            wait = self._look_after(perf_counter())
            if wait is not None and wait <= HORIZON:
                await asyncio.sleep(wait)
            else:
                self._arrived.clear()
                await happens(self._arrived, wait)

    def _look_after(self, now: float) -> float | None:
        """End time limits, and take back what waits behind a long task. Return the seconds until the next look."""
        limit, ends = self._handler.timeout, list[float]()
        for slot in self._slots:
            if slot.child is None or not slot.is_fed:
                continue
            if slot.hand and (len(slot.hand) > 1 or now - slot.since >= HORIZON):
                slot.child.collect()
            if not slot.hand:
                continue
            if limit is not None and now - slot.since >= limit:
                self._end_limit(slot)
                continue
            if now - slot.since >= HORIZON:
                self._put_back([slot])
            if limit is not None:
                ends.append(slot.since + limit)
        self._feed()
        if any(len(slot.hand) > 1 for slot in self._slots):
            ends.append(now + _COLLECT_EVERY)
        return max(0.0, min(ends) - now) if ends else None

    def _end_limit(self, slot: _Slot) -> None:
        assert slot.child is not None
        self._put_back([slot])
        task = slot.hand.popleft()
        self._outcomes.append(self._handler.over_time(task.delivery, task.id))
        self._flush()
        slot.is_killed = True
        slot.child.kill()

    def _put_back(self, slots: Sequence[_Slot]) -> None:
        """Return the tasks that have not started from the hands of processes to the pending ones."""
        tasks: list[_Task] = []
        for slot in slots:
            if slot.child is None or len(slot.hand) < 2:
                continue
            unstarted = slot.child.take_back()
            tasks += [task for task in slot.hand if task.number in unstarted]
            slot.hand = deque(task for task in slot.hand if task.number not in unstarted)
        self._pending.extendleft(task.delivery for task in sorted(tasks, reverse=True))

    def _feed(self) -> None:
        """Hand pending tasks to processes: first to those without any, then as many as will start soon."""
        if not self._pending or self._handler.cancelled:
            return
        now, limit = perf_counter(), min(_MOST, 1 + self._pace.ahead(1))
        for slot in sorted(self._slots, key=lambda slot: (len(slot.hand), slot.child is None)):
            if not self._pending:
                return
            if slot.is_killed or len(slot.hand) > limit // 2 or (slot.hand and now - slot.since > HORIZON):
                continue
            share = -(-len(self._pending) // self._concurrency)
            if slot.child is None:
                self._start(slot)
            elif slot.is_fed and not slot.child.is_full:
                self._send(slot, slot.child, self._take(min(limit - len(slot.hand), share)), now)

    def _take(self, count: int) -> list[tuple[_Task, bytes]]:
        """Return the next `count` tasks that can be run, with their packed arguments."""
        taken, size = list[tuple[_Task, bytes]](), 0
        while self._pending and len(taken) < count and size < _MOST_BYTES:
            delivery = self._pending.popleft()
            if delivery.receipt.lost:
                continue
            read = self._read(delivery)
            if isinstance(read, Outcome):
                self._outcomes.append(read)
            else:
                self._number += 1
                taken.append((_Task(self._number, delivery, read[0]), read[1]))
                size += len(read[1])
        if self._outcomes:
            self._flush()
        return taken

    def _read(self, delivery: Delivery) -> tuple[str, bytes] | Outcome:
        """Return the task's id and its packed arguments, or the outcome where it cannot be run."""
        try:
            read = self._contexts.fresh().run(self._handler.read, delivery)
        except Exception as error:
            return escaped(delivery, error)
        if isinstance(read, Outcome):
            return read
        id, arguments = read
        try:
            return id, packed(arguments)
        except BaseException as error:
            return self._handler.outcome(delivery, id, refusal("Processing error", error), 0.0)

    def _send(self, slot: _Slot, child: Child, tasks: list[tuple[_Task, bytes]], now: float) -> None:
        if not tasks:
            return
        if not slot.hand:
            slot.since = self._touched = now
        slot.hand.extend(task for task, _ in tasks)
        self._arrived.set()
        child.send([(task.number, arguments) for task, arguments in tasks])

    def _start(self, slot: _Slot) -> None:
        """Start a process, for the next task: that one is charged where it fails."""
        tasks = self._take(1)
        if not tasks:
            return
        slot.is_fed = False
        slot.child = child = Child(self._processor, self._encode, slot.answered, slot.died)
        slot.hand.append(tasks[0][0])
        slot.since = self._touched = perf_counter()

        def send(_: Any) -> None:
            if slot.child is child and slot.hand:
                slot.is_fed = True
                slot.since = perf_counter()  # the time limit is one of the task, not of the start
                child.send([(task.number, arguments) for task, arguments in tasks])
                self._arrived.set()

        child.start().add_done_callback(send)

    def answered(self, slot: _Slot, answers: list[Answered]) -> None:
        """Take the answers of a slot's process."""
        for number, answer, seconds, ended in answers:
            if not slot.hand or slot.hand[0].number != number:
                continue  # it was over its time limit, or cancelled
            task = slot.hand.popleft()
            self._deaths.pop(task.delivery, None)
            slot.since = ended
            self._pace.note(seconds)
            self._outcomes.append(self._handler.outcome(task.delivery, task.id, answer, seconds))
        self._touched = perf_counter()
        self._flush()
        self._feed()

    def died(self, slot: _Slot) -> None:
        """Charge the task that ran when the slot's process ended, if it was not killed for its time limit."""
        child, slot.child = slot.child, None
        if child is None:
            return
        unstarted = child.take_back()
        if slot.hand and not slot.is_killed and not (child.is_ready and slot.hand[0].number in unstarted):
            self._charge(slot.hand[0].delivery, slot)
        self._pending.extendleft(task.delivery for task in reversed(slot.hand))
        slot.hand.clear()
        slot.is_killed = False
        self._flush()
        self._arrived.set()
        self._feed()

    def _charge(self, delivery: Delivery, slot: _Slot) -> None:
        deaths = self._deaths[delivery] = self._deaths.get(delivery, 0) + 1
        if deaths >= self._tries:
            del self._deaths[delivery]
            task = slot.hand.popleft()
            self._outcomes.append(self._handler.outcome(delivery, task.id, died(self._tries), 0.0))

    def _flush(self) -> None:
        if self._outcomes:
            self._settler.add(self._outcomes)
            self._outcomes = []
        self.progress.set()
