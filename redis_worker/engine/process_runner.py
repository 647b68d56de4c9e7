"""The runner of plain functions in processes: each has several short tasks in hand, or one that is long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, Protocol

from redis_worker.engine.child import Answered, packed
from redis_worker.engine.execution import Answer, Encode, refusal
from redis_worker.engine.guard import escaped
from redis_worker.engine.pace import HORIZON, MeanPace
from redis_worker.engine.process_slot import InHand, ProcessSlot
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
_COLLECT_EVERY = HORIZON * 0.6


class Sending(Protocol):
    """Handles tasks whose calls are made in child processes."""

    cancelled: bool

    def read(self, delivery: Delivery) -> tuple[str, Any] | Outcome:
        """Return the id of a task and the argument of its call, or the outcome where it cannot be run."""
        ...

    def limit(self, delivery: Delivery) -> float | None:
        """Return the time limit of a task, in seconds."""
        ...

    def on_message(self, delivery: Delivery, id: str, message: Any) -> None:
        """Take a message from a running task."""
        ...

    def outcome(self, delivery: Delivery, id: str, answer: Answer, seconds: float) -> Outcome:
        """Return the outcome of a task with this `answer`, which took `seconds`."""
        ...

    def over_time(self, delivery: Delivery, id: str | None) -> Outcome:
        """Return the outcome of a task that has exceeded its time limit, or was stopped."""
        ...


class ProcessRunner(Runner):
    """Runs tasks in child processes, one for each slot: a crash, a hang or a time limit affects the task that runs.

    Each process leads a group that ends with it, with the programs that the function started.
    """

    def __init__(
        self,
        handler: Sending,
        settler: Settler,
        concurrency: int,
        processor: Callable[[Any], Any],
        tries: int,
        encode: Encode,
    ) -> None:
        """`tries` is how often a task may be the one that runs when its process dies. Raises ConfigurationError."""
        super().__init__(settler, concurrency)
        self._pace = MeanPace()
        check_processor(processor)
        self._handler = handler
        self._tries = tries
        ways = self._answered, self._ended, self._on_message
        self._slots = [ProcessSlot(processor, encode, *ways) for _ in range(concurrency)]
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

    def take_back(self, count: int | None = None) -> list[Delivery]:
        if count is None:
            self._put_back(self._slots)
        taken = super().take_back(count)
        for delivery in taken:
            self._deaths.pop(delivery, None)
        return taken

    def stop(self, is_meant: Callable[[Delivery], bool]) -> None:
        for slot in self._slots:
            if slot.child is None or slot.is_killed or not any(is_meant(task.delivery) for task in slot.hand):
                continue
            self._end_tasks(slot, slot.child.answers())
            self._put_back([slot])  # those that have not begun are read again
            if slot.hand and is_meant(slot.hand[0].delivery):
                self._stop_first(slot)
        self._flush()
        self._feed()

    def cancel(self) -> None:
        """Kill all processes; the tasks that run get no outcome."""
        self._handler.cancelled = True
        self._flush()
        self._pending.clear()
        for slot in self._slots:
            slot.clear()
        for slot in self._slots:
            slot.close()
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
        ends = list[float]()
        for slot in self._slots:
            if slot.child is None or not slot.is_fed:
                continue
            if slot.hand and (len(slot.hand) > 1 or now - slot.since >= HORIZON):
                self._end_tasks(slot, slot.child.answers())
            if not slot.hand:
                continue
            limit = self._handler.limit(slot.hand[0].delivery)
            if limit is not None and now - slot.since >= limit:
                self._put_back([slot])
                self._stop_first(slot)
                continue
            if now - slot.since >= HORIZON:
                self._put_back([slot])
            if limit is not None:
                ends.append(slot.since + limit)
        self._flush()
        self._feed()
        if any(len(slot.hand) > 1 for slot in self._slots):
            ends.append(now + _COLLECT_EVERY)
        return max(0.0, min(ends) - now) if ends else None

    def _stop_first(self, slot: ProcessSlot) -> None:
        task = slot.stop()
        self._outcomes.append(self._handler.over_time(task.delivery, task.id))

    def _on_message(self, task: InHand, message: Any) -> None:
        self._handler.on_message(task.delivery, task.id, message)

    def _put_back(self, slots: Sequence[ProcessSlot]) -> None:
        """Return the tasks that have not started from the hands of processes to the pending ones."""
        tasks = [task for slot in slots for task in slot.take_back()]
        self._pending.extendleft(task.delivery for task in sorted(tasks, reverse=True))
        if tasks:
            self.behind.set()

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
            if slot.child is not None:
                if slot.is_fed and not slot.child.is_full and (tasks := self._take(min(limit - len(slot.hand), share))):
                    self._touched = now
                    slot.send(tasks, now)
                    self._arrived.set()
            elif tasks := self._take(1):  # that one is charged where the process fails
                self._touched = now
                slot.start(tasks[0], self._arrived.set)

    def _take(self, count: int) -> list[InHand]:
        """Return the next `count` tasks that can be run."""
        taken, size = list[InHand](), 0
        while self._pending and len(taken) < count and size < _MOST_BYTES:
            delivery = self._pending.popleft()
            if delivery.receipt.lost:
                continue
            read = self._read(delivery)
            if isinstance(read, Outcome):
                self._outcomes.append(read)
            else:
                self._number += 1
                taken.append(InHand(self._number, delivery, *read))
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

    def _answered(self, slot: ProcessSlot, answers: list[Answered]) -> None:
        """Take answers that came by themselves: the process has no more tasks."""
        self._end_tasks(slot, answers)
        self._flush()
        self._feed()

    def _end_tasks(self, slot: ProcessSlot, answers: list[Answered]) -> None:
        for task, answer in slot.answered(answers):
            self._deaths.pop(task.delivery, None)
            self._pace.note(answer.seconds)
            self._outcomes.append(self._handler.outcome(task.delivery, task.id, answer.answer, answer.seconds))
            self._touched = answer.ended

    def _ended(self, slot: ProcessSlot, ran: bool) -> None:
        """Charge the task that `ran` when the slot's process ended."""
        if ran:
            self._charge(slot.hand[0].delivery, slot)
        self._pending.extendleft(task.delivery for task in reversed(slot.hand))
        slot.hand.clear()
        self._flush()
        self._arrived.set()
        self._feed()

    def _charge(self, delivery: Delivery, slot: ProcessSlot) -> None:
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
