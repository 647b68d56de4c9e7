"""What happens to one task: raw bytes -> Task -> arguments -> value -> Outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

from redis_worker.engine.execution import CAUGHT, Execution, TimedOut, refusal, timed_out
from redis_worker.engine.reading import Read
from redis_worker.engine.retry import RetryPolicy
from redis_worker.vocabulary.payload import success
from redis_worker.vocabulary.task import Delivery, Outcome

_new = tuple.__new__


class Handled(NamedTuple):
    """An outcome, and what of the task goes on regardless and keeps its slot (a thread, after its time limit)."""

    outcome: Outcome
    leftover: asyncio.Future[Any] | None = None


class Handler:
    """How deliveries are read, what their processor is, and how it is called."""

    def __init__(
        self,
        read: Read,
        processor: Callable[[Any], Any],
        execution: Execution | None,
        timeout: float | None,
        policy: RetryPolicy,
    ) -> None:
        self._read = read
        self._processor = processor
        self._execution = execution
        self._timeout = timeout
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
            answer = refusal("Processing error", error)
            return self._policy.outcome(delivery, id, answer, perf_counter() - started)
        # Half the time of Outcome(…), and this is the hot path.
        return _new(Outcome, (delivery, id, result, None, False, perf_counter() - started, None, False))

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
            answer = timed_out(self._timeout)
        except Exception as error:
            answer = refusal("Processing error", error)
        seconds = perf_counter() - started
        if answer[1] is not None:
            return Handled(self._policy.outcome(delivery, id, answer, seconds), leftover)
        outcome = _new(Outcome, (delivery, id, answer[0], None, False, seconds, None, False))
        return _new(Handled, (outcome, leftover))
