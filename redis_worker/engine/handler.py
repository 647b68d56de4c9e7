"""The handling of one task: raw bytes -> Task -> arguments -> value -> Outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from redis_worker.engine.awaitables import unawaited
from redis_worker.engine.execution import Encode, Execution
from redis_worker.engine.guard import CallGuard
from redis_worker.engine.reading import Read
from redis_worker.engine.retry import RetryPolicy
from redis_worker.vocabulary.payload import success
from redis_worker.vocabulary.task import Delivery, Outcome


class Handler(CallGuard):
    """Turns a delivery into its outcome: reads it, calls the processor, judges the answer."""

    def __init__(
        self,
        read: Read,
        processor: Callable[[Any], Any],
        execution: Execution | None,
        timeout: float | None,
        policy: RetryPolicy,
        encode: Encode = success,
    ) -> None:
        """`encode` serves inline calls; an `execution` has its own."""
        super().__init__(timeout)
        self._read = read
        self._processor = processor
        self._execution = execution
        self._policy = policy
        self._encode = encode

    def handle_inline(self, delivery: Delivery) -> Outcome:
        """Call the processor here and now. Returns the outcome."""
        started = perf_counter()
        read = self._read(delivery)
        if isinstance(read, Outcome):
            return read
        id, arguments = read
        value = None
        try:
            value = self._processor(arguments)
            result = self._encode(value)
        except BaseException as error:
            answer, _ = self.caught(unawaited(value) or error)
            return self._policy.outcome(delivery, id, answer, perf_counter() - started)
        return Outcome(delivery, id, result, None, False, perf_counter() - started)

    async def handle(self, batch: Sequence[Delivery]) -> tuple[Sequence[Outcome], asyncio.Future[Any] | None]:
        """Call the processor, where it declares to run, for a batch of one.

        Returns the outcome, and the call itself where it goes on after its time limit (a thread) and keeps its slot.
        """
        assert self._execution is not None
        delivery = batch[0]
        read = self._read(delivery)
        if isinstance(read, Outcome):
            return (read,), None
        id, arguments = read
        started = perf_counter()
        leftover = None
        try:
            answer = await self._execution.call(arguments)
        except BaseException as error:
            answer, leftover = self.caught(error)
        seconds = perf_counter() - started
        if answer.error is not None:
            return (self._policy.outcome(delivery, id, answer, seconds),), leftover
        return (Outcome(delivery, id, answer.result, None, False, seconds),), leftover
