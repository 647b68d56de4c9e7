"""The handling of one task of a function: raw JSON -> function and arguments -> value -> Outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, TypeAlias

from redis_worker.engine.execution import Answer, TimedOut, timed_out
from redis_worker.engine.guard import CallGuard
from redis_worker.engine.retry import RetryPolicy
from redis_worker.functions.current import CURRENT, CurrentTask
from redis_worker.functions.executions import Request
from redis_worker.functions.function import TaskFunction
from redis_worker.functions.reading import FunctionReader, Received
from redis_worker.vocabulary.error_text import is_a
from redis_worker.vocabulary.task import Delivery, Outcome

Execute: TypeAlias = Callable[[Request], Awaitable[Answer]]
"""Runs one call, where its function declares to run. Raises as Execution.call does."""


class FunctionHandler(CallGuard):
    """Turns a delivery into its outcome: reads it, calls the function that it names, judges the answer."""

    def __init__(self, queue: str, reader: FunctionReader, execute: Execute) -> None:
        super().__init__(None)
        self._queue = queue
        self._reader = reader
        self._execute = execute
        self._policies: dict[TaskFunction[..., Any, Any], RetryPolicy] = {}

    async def handle(self, batch: Sequence[Delivery]) -> tuple[Sequence[Outcome], asyncio.Future[Any] | None]:
        """Call the function of a batch of one, in a context of its own.

        Returns the outcome, and the call itself where it goes on after its time limit (a thread) and keeps its slot.
        """
        received = self._reader.read(batch[0])
        if isinstance(received, Outcome):
            return (received,), None
        started = perf_counter()
        answer, leftover = await self._run(received)
        return (self._outcome(received, answer, perf_counter() - started),), leftover

    async def _run(self, received: Received) -> tuple[Answer, asyncio.Future[Any] | None]:
        """Run a task: here it has been read, and nothing of it has begun."""
        function = received.function
        timeout = function.declaration.timeout
        deadline = None if timeout is None else time.time() + timeout
        current = CurrentTask(received.id, function.name, self._queue, received.delivery.attempt, deadline)
        CURRENT.set(current)
        try:
            return await self._execute(Request(function, received.arguments, current)), None
        except BaseException as error:
            if is_a(error, TimedOut):
                return timed_out(timeout), error.leftover
            return self.caught(error)

    def _outcome(self, received: Received, answer: Answer, seconds: float) -> Outcome:
        """Return the outcome of a task: here its answer is known, and nothing is written yet."""
        delivery, id = received.delivery, received.id
        if answer.error is None:
            return Outcome(delivery, id, answer.result, None, False, seconds)
        return self._policy(received).outcome(delivery, id, answer, seconds)

    def _policy(self, received: Received) -> RetryPolicy:
        """Return the retries of the function, or of this task if its producer has chosen another number."""
        function, retries = received.function, received.members.get("retries")
        policy = self._policies.get(function)
        if policy is None:
            declared = function.declaration
            policy = RetryPolicy(declared.retries, declared.retry_backoff, declared.retry_backoff_max)
            self._policies[function] = policy
        return policy if retries is None else replace(policy, retries=int(retries))
