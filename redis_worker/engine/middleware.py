"""Middleware: coroutine functions around the call of a task, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

from redis_worker.engine.execution import Answer, Encode, Execution, TimedOut, refusal
from redis_worker.engine.reading import Read
from redis_worker.vocabulary.calls import accepts
from redis_worker.vocabulary.error_text import is_a
from redis_worker.vocabulary.errors import ConfigurationError, RaisedInProcess, Reject, Retry
from redis_worker.vocabulary.payload import read_object
from redis_worker.vocabulary.processor import is_coroutine_function
from redis_worker.vocabulary.task import Delivery, Outcome


@dataclass(frozen=True)
class TaskCall:
    """The call of a task, as a middleware sees it."""

    id: str
    queue: str
    """The list that the task came from."""
    name: str
    """The name of the processor, the handler or the function."""
    attempt: int
    """1 for the first run, plus 1 for each other one."""
    arguments: Any
    """The arguments of a processor, the Message of a handler, or of a function those by position and those by name."""
    raw: bytes = field(repr=False)
    """The payload, as its producer wrote it."""

    @cached_property
    def members(self) -> dict[str, Any]:
        """All members of the payload."""
        return read_object(self.raw)[1]


CallNext: TypeAlias = Callable[[TaskCall], Awaitable[Any]]
"""Calls the next middleware, or the function; returns its value or raises its error."""
Middleware: TypeAlias = Callable[[TaskCall, CallNext], Awaitable[Any]]
"""A coroutine function around each call; its value is that of the task."""


class Middlewares:
    """The middleware of one worker or queue, the outermost first."""

    def __init__(self, functions: Iterable[Middleware] = ()) -> None:
        """Raises ConfigurationError."""
        self._functions: list[Middleware] = []
        for function in functions:
            self.add(function)

    def __bool__(self) -> bool:
        return bool(self._functions)

    def add(self, function: Middleware) -> None:
        """Add the new innermost middleware. Raises ConfigurationError if it is no coroutine function of two."""
        if not is_coroutine_function(function) or not accepts(function, (None, None), {}):
            name = getattr(function, "__name__", type(function).__name__)
            raise ConfigurationError(f"the middleware {name} is not an `async def` of two arguments: task, call_next")
        self._functions.append(function)

    async def call(self, task: TaskCall, function: Callable[[TaskCall], Awaitable[Answer]], encode: Encode) -> Answer:
        """Return the answer to one call of `function`, whose own answer is not encoded yet.

        Raises TimedOut, and all errors of the middleware: see CallGuard.
        """
        innermost = _Innermost(function)
        call: CallNext = innermost.call
        for middleware in reversed(self._functions):
            call = partial(_call, middleware, call)
        try:
            answer = Answer(encode(await call(task)))
        except BaseException as error:
            if innermost.answer is not None and error is innermost.error:
                return innermost.answer  # as it was judged where it was raised
            if innermost.leftover is None or is_a(error, TimedOut) or is_a(error, asyncio.CancelledError):
                raise
            answer = refusal("Processing error", error)
        if innermost.leftover is not None:
            raise TimedOut(innermost.leftover, answer)
        return answer


async def _call(middleware: Middleware, call_next: CallNext, task: TaskCall) -> Any:
    return await middleware(task, call_next)


class _Innermost:
    """The call of the function itself, and what must not be lost whatever the middleware makes of it."""

    def __init__(self, function: Callable[[TaskCall], Awaitable[Answer]]) -> None:
        self._function = function
        self.answer: Answer | None = None
        """The answer behind `error`."""
        self.error: BaseException | None = None
        self.leftover: asyncio.Future[Any] | None = None
        """The call that goes on after its time limit."""

    async def call(self, task: TaskCall) -> Any:
        """Return the value. Raises the error of the function, and TimedOut."""
        try:
            answer = await self._function(task)
        except TimedOut as error:
            self.leftover = error.leftover
            raise
        if answer.error is None:
            return answer.result
        self.answer, self.error = answer, _error(answer)
        raise self.error


def _error(answer: Answer) -> BaseException:
    """Return the error of a failed call; from a child process come a verdict and a traceback."""
    error, text = answer.exception, (answer.error or "").removeprefix("Processing error: ")
    if error is None or isinstance(error, RaisedInProcess):
        match answer.verdict:
            case "retry":
                return Retry(text, delay=answer.delay)
            case "reject":
                return Reject(text)
    return RaisedInProcess(text, "") if error is None else error


class Surrounded:
    """An execution with middleware around each call; its argument is a TaskCall."""

    def __init__(self, execution: Execution, middlewares: Middlewares, encode: Encode) -> None:
        """`execution` does not encode."""
        self._execution = execution
        self._middlewares = middlewares
        self._encode = encode

    async def call(self, arguments: TaskCall) -> Answer:
        return await self._middlewares.call(arguments, self._inner, self._encode)

    def _inner(self, task: TaskCall) -> Awaitable[Answer]:
        return self._execution.call(task.arguments)

    def close(self) -> None:
        self._execution.close()


def read_call(read: Read, queue: str, name: str) -> Read:
    """Return the decoder that makes a TaskCall of what `read` returns."""

    def reading(delivery: Delivery) -> tuple[str, TaskCall] | Outcome:
        found = read(delivery)
        if isinstance(found, Outcome):
            return found
        id, arguments = found
        return id, TaskCall(id, queue, name, delivery.attempt, arguments, delivery.raw)

    return reading
