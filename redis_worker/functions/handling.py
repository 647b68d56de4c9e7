"""The handling of one task of a function: raw JSON -> function and arguments -> value -> Outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter, time

from redis_worker.engine.awaitables import is_awaitable, resolved, unawaited
from redis_worker.engine.execution import Answer, Execution, TimedOut, timed_out, within
from redis_worker.engine.guard import CallGuard
from redis_worker.engine.handler import Caller
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.running import show_below
from redis_worker.functions.current import CURRENT
from redis_worker.functions.executions import call
from redis_worker.functions.function import AnyFunction
from redis_worker.functions.marks import cancelled
from redis_worker.functions.reading import FunctionReader, Received
from redis_worker.functions.values import result_of
from redis_worker.vocabulary.error_text import is_a
from redis_worker.vocabulary.task import Delivery, Outcome


class FunctionHandler(CallGuard):
    """Turns a delivery into its outcome: reads it, calls the function that it names, judges the answer."""

    def __init__(self, reader: FunctionReader, executions: Mapping[AnyFunction, Execution | None]) -> None:
        limits = [function.declaration.timeout for function in executions]
        super().__init__(min((limit for limit in limits if limit is not None), default=None))
        self._read = reader.read
        self.marks = reader.marks
        self._marked = reader.marks.known
        self._executions = executions
        self._policies: dict[AnyFunction, RetryPolicy] = {}

    async def handle(self, delivery: Delivery) -> Outcome:
        """Return the outcome of a task, whose function is called in a context of its own. The hot path."""
        received = self._read(delivery)
        if isinstance(received, Outcome):
            return received
        if self._marked and received.is_cancelled():
            return cancelled(delivery, received.id)
        execution = self._begin(received)
        CURRENT.set(received)
        started = perf_counter()
        try:
            if execution is not None:
                answer = await execution.call(received)
            else:
                timeout, coroutine = received.function.declaration.timeout, call(received)
                value = await (coroutine if timeout is None else within(timeout, coroutine))
                answer = Answer(result_of(await resolved(value) if is_awaitable(value) else value))
        except BaseException as error:
            answer = self._raised(received, error)
        return self._outcome(received, answer, perf_counter() - started)

    def handle_here(self, delivery: Delivery, caller: Caller | None = None) -> Outcome:
        """Call a plain function in the current thread. Returns the outcome. The hot path.

        Without a `caller`, on the event loop, an awaitable is an error.
        """
        if caller is not None:
            caller.timeout = None
        received = self._read(delivery)
        if isinstance(received, Outcome):
            return received
        if self._marked and received.is_cancelled():
            return cancelled(delivery, received.id)
        self._begin(received)
        token = CURRENT.set(received)
        started = perf_counter()
        if caller is not None:
            caller.id, caller.timeout = received.id, received.function.declaration.timeout
        value = None
        try:
            value = call(received)
            if caller is not None and is_awaitable(value):
                awaitable, value = value, None
                value = caller.resolve(awaitable, started)
            answer = Answer(result_of(value))
        except BaseException as error:
            answer = self._raised(received, unawaited(value) or error)
        finally:
            CURRENT.reset(token)  # a context that is as before serves the next task too
        return self._outcome(received, answer, perf_counter() - started)

    def is_stoppable(self, delivery: Delivery) -> bool:
        """Return True if the call of a running task ends when its asyncio task is cancelled: a thread goes on."""
        received = self._read(delivery)
        return isinstance(received, Received) and received.function.declaration.execution != "thread"

    def over_time(self, delivery: Delivery, id: str | None) -> Outcome:  # noqa: ARG002 - it is read again
        """See Calling."""
        received = self._read(delivery)
        if isinstance(received, Outcome):
            return received
        timeout = received.function.declaration.timeout
        return self._outcome(received, timed_out(timeout), timeout or 0.0)

    def _begin(self, received: Received) -> Execution | None:
        """Return the place of a task's call, None for a coroutine: it has been read, and nothing of it has begun."""
        function = received.function
        if function.declaration.timeout is not None:
            received.deadline = time() + function.declaration.timeout
        return self._executions[function]

    def _raised(self, received: Received, error: BaseException) -> Answer:
        """Return the answer to a call that raised `error`. Raises it again if the runner or Ctrl-C caused it."""
        if not is_a(error, TimedOut):
            return self.caught(error)[0]
        if error.leftover is not None:
            self._leftovers[received.delivery] = error.leftover
        return error.answer or timed_out(received.function.declaration.timeout)

    def _outcome(self, received: Received, answer: Answer, seconds: float) -> Outcome:
        """Return the outcome of a task: its answer is known, and nothing is written yet."""
        delivery, id = received.delivery, received.id
        if self._marked and received.is_cancelled():
            return cancelled(delivery, id, seconds)
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


show_below(FunctionHandler.handle, call)
