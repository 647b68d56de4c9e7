"""What happens to one task: raw bytes -> Task -> arguments -> value -> Outcome."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, NamedTuple

from redis_worker.engine.execution import CAUGHT, Answer, Execution, TimedOut, refusal
from redis_worker.engine.retry import RetryPolicy
from redis_worker.ports import Parser, Processor
from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.payload import MissingTask, failure, read_task, success
from redis_worker.vocabulary.task import Delivery, Outcome, Task

_new = tuple.__new__


class Handled(NamedTuple):
    """An outcome, and what of the task goes on regardless and keeps its slot (a thread, after its time limit)."""

    outcome: Outcome
    leftover: asyncio.Future[Any] | None = None


class Handler:
    """A parser and a processor, and how the processor is called."""

    def __init__(
        self,
        parser: Parser,
        processor: Processor,
        execution: Execution | None,
        timeout: float | None,
        max_deliveries: int,
        policy: RetryPolicy,
    ) -> None:
        self._parser = parser
        self._processor = processor
        self._execution = execution
        self._timeout = timeout
        self._max_deliveries = max_deliveries
        self._policy = policy

    def handle_inline(self, delivery: Delivery) -> Outcome:
        """The outcome of calling the processor here and now."""
        started = perf_counter()
        read = self._read(delivery)
        if isinstance(read, Outcome):
            return read
        id, arguments = read
        try:
            result = success(self._processor(arguments))
        except CAUGHT as error:
            return self._failed(delivery, id, refusal("Processing error", error), perf_counter() - started)
        # Half the time of Outcome(…), and this is the hot path.
        return _new(Outcome, (delivery, id, result, None, False, perf_counter() - started, None))

    async def handle(self, delivery: Delivery) -> Handled:
        """The outcome of calling the processor where it declares to run."""
        assert self._execution is not None
        read = self._read(delivery)
        if isinstance(read, Outcome):
            return Handled(read)
        id, arguments = read
        started = perf_counter()
        leftover = None
        try:
            answer = await self._execution.call(arguments)
        except TimedOut as error:
            leftover = error.leftover
            text = f"Processing error: timed out after {self._timeout:g} s"
            answer = Answer(failure(text), text)
        except Exception as error:
            answer = refusal("Processing error", error)
        seconds = perf_counter() - started
        if answer[1] is not None:
            return Handled(self._failed(delivery, id, answer, seconds), leftover)
        outcome = _new(Outcome, (delivery, id, answer[0], None, False, seconds, None))
        return _new(Handled, (outcome, leftover))

    def _failed(self, delivery: Delivery, id: str, answer: Answer, seconds: float) -> Outcome:
        """Again after a delay, or an error result, with a dead letter where retries are over or declined."""
        delay = self._policy.delay(answer, delivery.retries)
        if delay is not None:
            return Outcome(delivery, id, None, answer.error, False, seconds, delay)
        dead = self._policy.is_last_resort(answer)
        return Outcome(delivery, id, answer.result, answer.error, dead, seconds)

    def _read(self, delivery: Delivery) -> tuple[str, list[Any]] | Outcome:
        """The task's id and arguments, or the outcome where there is nothing to call."""
        try:
            task = read_task(delivery[0], delivery[4])
        except Unreadable as error:
            return Outcome(delivery, None, None, str(error), dead=True)
        except MissingTask as missing:
            return _refused(delivery, missing.id, missing)
        if delivery.deaths >= self._max_deliveries:
            return self._condemned(delivery, task)
        try:
            return task[0], self._parser(task[1])
        except Exception as error:
            return _refused(delivery, task.id, error)

    def _condemned(self, delivery: Delivery, task: Task) -> Outcome:
        times = delivery.deaths
        text = f"Processing error: given up: {times} worker{'s' * (times > 1)} died while holding the task"
        return Outcome(delivery, task.id, failure(text), text, dead=True)


def _refused(delivery: Delivery, id: str, error: Exception) -> Outcome:
    answer = refusal("Parse error", error)
    return Outcome(delivery, id, answer.result, answer.error)
