"""A slot for tasks in a child process: the process, and the tasks that it has in hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

from redis_worker.engine.child import Answered, Child
from redis_worker.engine.execution import Encode
from redis_worker.vocabulary.task import Delivery


class InHand(NamedTuple):
    """A task in the hand of a process."""

    number: int
    delivery: Delivery
    id: str
    arguments: bytes
    """Its packed arguments."""


class ProcessSlot:
    """A slot, the process in it, if there is one, and the tasks that the process has and has not answered."""

    def __init__(
        self,
        processor: Callable[[Any], Any],
        encode: Encode,
        on_answers: Callable[[ProcessSlot, list[Answered]], None],
        on_end: Callable[[ProcessSlot, bool], None],
        on_message: Callable[[InHand, Any], None],
    ) -> None:
        """`on_end` is called when the process has ended: True if it ran a task, and was not killed for its time limit.

        `on_answers` is called with answers that nothing has asked for with `answers`; `on_message` with a message
        from a running task.
        """
        self._processor = processor
        self._encode = encode
        self._on_answers = on_answers
        self._on_end = on_end
        self._on_message = on_message
        self.child: Child | None = None
        self.hand: deque[InHand] = deque()
        """The process runs the first, or is about to."""
        self.since = 0.0
        """The time since which it runs that one, by perf_counter."""
        self.is_fed = False
        """True once the process was sent its first task."""
        self.is_killed = False
        """True from its kill at a time limit until it has ended."""

    def start(self, task: InHand, fed: Callable[[], None]) -> None:
        """Start a process for `task`; `fed` is called once the task was sent."""
        self.is_fed = False
        self.child = child = Child(
            self._processor, self._encode, lambda answers: self._on_answers(self, answers), self._ended
        )
        child.on_message = self._receive
        self.hand.append(task)
        self.since = perf_counter()

        def send(_: Any) -> None:
            if self.child is child:
                self.is_fed = True
                self.since = perf_counter()  # the time limit is one of the task, not of the start
                if self.hand:  # it was not stopped meanwhile
                    child.send([(task.number, task.arguments)])
                fed()

        child.start().add_done_callback(send)

    def send(self, tasks: list[InHand], now: float) -> None:
        """Hand over more tasks, at the time `now`."""
        assert self.child is not None
        if not self.hand:
            self.since = now
        self.hand.extend(tasks)
        self.child.send([(task.number, task.arguments) for task in tasks])

    def answered(self, answers: Iterable[Answered]) -> Iterator[tuple[InHand, Answered]]:
        """Yield the tasks that end with `answers`, in order; not those over their time limit, or cancelled."""
        for answer in answers:
            if self.hand and self.hand[0].number == answer.number:
                self.since = answer.ended
                yield self.hand.popleft(), answer

    def take_back(self) -> list[InHand]:
        """Remove the tasks that have not started from the hand and return them."""
        if self.child is None or len(self.hand) < 2:
            return []
        unstarted = self.child.take_back()
        taken = [task for task in self.hand if task.number in unstarted]
        self.hand = deque(task for task in self.hand if task.number not in unstarted)
        return taken

    def stop(self) -> InHand:
        """Kill the process if it runs its first task; return that task."""
        assert self.child is not None
        if self.is_fed:
            self.is_killed = True
            self.child.kill()
        return self.hand.popleft()

    def clear(self) -> None:
        """Kill the process without waiting; forget the tasks."""
        self.hand.clear()
        self.is_killed = False
        if self.child is not None:
            self.child.kill()

    def close(self) -> None:
        """Kill the process and wait for its end; `on_end` is not called."""
        if self.child is not None:
            self.child.close()
            self.child = None

    def _receive(self, number: int, message: Any) -> None:
        if (task := next((task for task in self.hand if task.number == number), None)) is not None:
            self._on_message(task, message)

    def _ended(self) -> None:
        child, self.child = self.child, None
        if child is None:
            return
        unstarted = child.take_back()
        ran = bool(self.hand) and not self.is_killed and not (child.is_ready and self.hand[0].number in unstarted)
        self.is_killed = False
        self._on_end(self, ran)
