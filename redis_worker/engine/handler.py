"""The handling of one task: raw bytes -> Task -> arguments -> value -> Outcome."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

from redis_worker.engine.awaitables import is_awaitable, resolved, unawaited
from redis_worker.engine.execution import Answer, Encode, Execution, timed_out, within
from redis_worker.engine.guard import CallGuard, id_in
from redis_worker.engine.reading import Read
from redis_worker.engine.retry import RetryPolicy
from redis_worker.vocabulary.payload import success
from redis_worker.vocabulary.task import RUNNING, Delivery, Outcome


class Caller(Protocol):
    """A thread that calls the processor."""

    id: str | None
    """The id of the task that it runs, once the task is read."""

    timeout: float | None
    """The time limit of the task that it runs, in seconds."""

    def resolve(self, value: Any, started: float) -> Any:
        """Return what an awaitable becomes, within the time limit of a call that began at `started`."""


class Calling(Protocol):
    """Handles tasks in the threads of a runner, or on its event loop."""

    cancelled: bool

    timeout: float | None
    """The shortest time limit of a call, in seconds; None if none has one."""

    def handle_here(self, delivery: Delivery, caller: Caller | None = None, started: float | None = None) -> Outcome:
        """Return the outcome of a task, whose call is made in the current thread; see Handler."""
        ...

    def over_time(self, delivery: Delivery, id: str | None) -> Outcome:
        """Return the outcome of a task that has exceeded its time limit; see Handler."""
        ...


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
        """`execution` is None where the processor is called here; otherwise it encodes, in place of `encode`."""
        super().__init__(timeout)
        self.read = read
        self._processor = processor
        self._execution = execution
        self._policy = policy
        self._encode = encode

    def handle_here(self, delivery: Delivery, caller: Caller | None = None, started: float | None = None) -> Outcome:
        """Call the processor in the current thread. Returns the outcome. The hot path.

        Without a `caller`, on the event loop, an awaitable is an error. `started` is the time, by perf_counter, if it
        is known.
        """
        if started is None:
            started = perf_counter()
        read = self.read(delivery)
        if isinstance(read, Outcome):
            return read
        id, arguments = read
        value = None
        if caller is not None:  # on the event loop the runner sets it
            RUNNING.set(delivery)
            caller.id = id
        try:
            value = self._processor(arguments)
            if caller is not None and is_awaitable(value):
                awaitable, value = value, None
                value = caller.resolve(awaitable, started)
            result = self._encode(value)
        except BaseException as error:
            answer, _ = self.caught(unawaited(value) or error)
            return self._policy.outcome(delivery, id, answer, perf_counter() - started)
        return Outcome(delivery, id, result, None, False, perf_counter() - started)

    def outcome(self, delivery: Delivery, id: str, answer: Answer, seconds: float) -> Outcome:
        """Return the outcome of a task with this `answer`, which took `seconds`."""
        if answer.error is not None:
            return self._policy.outcome(delivery, id, answer, seconds)
        return Outcome(delivery, id, answer.result, None, False, seconds)

    def over_time(self, delivery: Delivery, id: str | None) -> Outcome:
        """Return the outcome of a task that has exceeded its time limit; `id` is None while it is being read."""
        assert self.timeout is not None
        answer = timed_out(self.timeout)
        if id is None and (id := delivery.label or id_in(delivery.raw)) is None:
            return Outcome(delivery, None, None, answer.error, dead=True, seconds=self.timeout)
        return self._policy.outcome(delivery, id, answer, self.timeout)

    async def handle(self, delivery: Delivery) -> Outcome:
        """Return the outcome of a task: the processor is a coroutine function, unless an execution calls it."""
        read = self.read(delivery)
        if isinstance(read, Outcome):
            return read
        id, arguments = read
        RUNNING.set(delivery)
        started = perf_counter()
        try:
            if self._execution is not None:
                answer = await self._execution.call(arguments)
                return self.outcome(delivery, id, answer, perf_counter() - started)
            value = await (
                self._processor(arguments) if self.timeout is None else within(self.timeout, self._processor(arguments))
            )
            result = self._encode(await resolved(value) if is_awaitable(value) else value)
        except BaseException as error:
            answer, leftover = self.caught(error)
            if leftover is not None:
                self._leftovers[delivery] = leftover
            return self._policy.outcome(delivery, id, answer, perf_counter() - started)
        return Outcome(delivery, id, result, None, False, perf_counter() - started)
