"""The handling of one task of a function: raw JSON -> function and arguments -> value -> Outcome."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter, time
from typing import Any

from redis_worker.engine.awaitables import is_awaitable, resolved, unawaited
from redis_worker.engine.execution import Answer, Execution, TimedOut, timed_out, within
from redis_worker.engine.guard import CallGuard
from redis_worker.engine.handler import Caller
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.running import show_below
from redis_worker.functions.executions import Sent, call, sent
from redis_worker.functions.function import AnyFunction
from redis_worker.functions.marks import cancelled
from redis_worker.functions.reading import FunctionReader, Received
from redis_worker.functions.values import result_of
from redis_worker.vocabulary.error_text import is_a
from redis_worker.vocabulary.payload import read_object
from redis_worker.vocabulary.processor import Declaration
from redis_worker.vocabulary.processor import Execution as Place
from redis_worker.vocabulary.task import RUNNING, Delivery, Outcome


class FunctionHandler(CallGuard):
    """Turns a delivery into its outcome: reads it, calls the function that it names, judges the answer."""

    def __init__(self, reader: FunctionReader, executions: Mapping[AnyFunction, Execution]) -> None:
        """`executions` are for functions with middleware; the runner calls the others, or has them called."""
        self._functions = reader.functions
        limits = [function.declaration.timeout for function in self._functions.values()]
        super().__init__(min((limit for limit in limits if limit is not None), default=None))
        self._reader = reader
        self._read = reader.read
        self._marked = reader.marks.known
        self._executions = executions

    async def handle(self, delivery: Delivery) -> Outcome:
        """Return the outcome of a task, whose function is called in a context of its own. The hot path."""
        received = self._read(delivery)
        if isinstance(received, Outcome):
            return received
        if self._marked and received.is_cancelled():
            return cancelled(delivery, received.id)
        if (timeout := received.function.declaration.timeout) is not None:
            received.deadline = time() + timeout
        RUNNING.set(received)
        execution = self._executions.get(received.function)
        started = perf_counter()
        try:
            if execution is not None:
                answer = await execution.call(received)
            else:
                coroutine = call(received)
                value = await (coroutine if timeout is None else within(timeout, coroutine))
                result = result_of(await resolved(value) if is_awaitable(value) else value)
                if not self._marked:
                    return Outcome(delivery, received.id, result, None, False, perf_counter() - started)
                answer = Answer(result)
        except BaseException as error:
            answer = self._raised(received, error)
        return self.outcome(delivery, received.id, answer, perf_counter() - started)

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
        if (timeout := received.function.declaration.timeout) is not None:
            received.deadline = time() + timeout
        token = RUNNING.set(received)
        started = perf_counter()
        if caller is not None:
            caller.id, caller.timeout = received.id, timeout
        value = None
        try:
            value = call(received)
            if caller is not None and is_awaitable(value):
                awaitable, value = value, None
                value = caller.resolve(awaitable, started)
            result = result_of(value)
            if not self._marked:
                return Outcome(delivery, received.id, result, None, False, perf_counter() - started)
            answer = Answer(result)
        except BaseException as error:
            answer = self._raised(received, unawaited(value) or error)
        finally:
            RUNNING.reset(token)  # a context that is as before serves the next task too
        return self.outcome(delivery, received.id, answer, perf_counter() - started)

    def place(self, delivery: Delivery) -> Place:
        """See Placing. The task is read once."""
        if delivery.received is not None:
            return delivery.received.function.declaration.execution  # type: ignore[no-any-return]
        try:
            received = self._read(delivery)
        except Exception:  # `handle` meets it again
            return "async"
        if isinstance(received, Outcome):
            return "async"
        delivery.received = received
        return received.function.declaration.execution

    def read(self, delivery: Delivery) -> tuple[str, Sent] | Outcome:
        """See Sending."""
        received = self._read(delivery)
        if isinstance(received, Outcome):
            return received
        if self._marked and received.is_cancelled():
            return cancelled(delivery, received.id)
        if (timeout := received.function.declaration.timeout) is not None:
            received.deadline = time() + timeout
        return received.id, sent(received)

    def limit(self, delivery: Delivery) -> float | None:
        return self._declaration(delivery).timeout

    def on_message(self, delivery: Delivery, id: str, message: Any) -> None:
        self._reader.side.report(delivery, id, *message)

    def is_stopped(self, delivery: Delivery) -> bool:
        """Return True if a running task is to be cancelled, and can be: a thread goes on."""
        return self._reader.marks.hold(delivery) and self._declaration(delivery).execution != "thread"

    def over_time(self, delivery: Delivery, id: str | None) -> Outcome:
        """See Calling, and Sending."""
        assert id is not None, "a task has a time limit once it is read"
        timeout = self._declaration(delivery).timeout
        if timeout is None or self._reader.marks.hold(delivery):
            return cancelled(delivery, id)
        return self.outcome(delivery, id, timed_out(timeout), timeout)

    def _declaration(self, delivery: Delivery) -> Declaration:
        """Return the declaration of the function of a task that was read."""
        return self._functions[delivery.function or ""].declaration

    def _raised(self, received: Received, error: BaseException) -> Answer:
        """Return the answer to a call that raised `error`. Raises it again if the runner or Ctrl-C caused it."""
        if not is_a(error, TimedOut):
            return self.caught(error)[0]
        if error.leftover is not None:
            self._leftovers[received.delivery] = error.leftover
        return error.answer or timed_out(received.function.declaration.timeout)

    def outcome(self, delivery: Delivery, id: str, answer: Answer, seconds: float) -> Outcome:
        """Return the outcome of a task: its answer is known, and nothing is written yet."""
        if self._marked and self._reader.marks.hold(delivery):
            return cancelled(delivery, id, seconds)
        if answer.error is None:
            return Outcome(delivery, id, answer.result, None, False, seconds)
        return self._policy(delivery).outcome(delivery, id, answer, seconds)

    def _policy(self, delivery: Delivery) -> RetryPolicy:
        """Return the retries of the function, or of this task if its producer has chosen another number."""
        declared = self._declaration(delivery)
        retries = read_object(delivery.raw, delivery.plain)[1].get("retries")
        return RetryPolicy(
            declared.retries if retries is None else int(retries), declared.retry_backoff, declared.retry_backoff_max
        )


show_below(FunctionHandler.handle, call)
