"""The executions of a user's function: on the event loop and in threads (processes: processes.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from redis_worker.engine.awaitables import discard, is_awaitable, resolved, unawaited
from redis_worker.engine.thread_pool import OwnThreads, ThreadPool
from redis_worker.vocabulary.error_text import error_text, is_a
from redis_worker.vocabulary.errors import Reject, Retry
from redis_worker.vocabulary.payload import failure, success

Verdict = Literal["failed", "retry", "reject"]
Encode: TypeAlias = Callable[[Any], Any]
"""Makes the result of a function's value, as its queue stores it: JSON for Redis. Raises TypeError or ValueError."""


@dataclass(slots=True, eq=False)
class Answer:
    """A result ready to be stored; with an error text if the task failed."""

    result: Any
    error: str | None = None
    verdict: Verdict = "failed"
    """The processor's decision about an error."""
    delay: float | None = None
    """The delay of a "retry" in seconds, if the processor set one."""
    exception: BaseException | None = None
    """The exception behind the error."""


class TimedOut(TimeoutError):
    """The end of a time limit; `leftover` is the call that continues, and keeps its slot until it ends."""

    def __init__(self, leftover: asyncio.Future[Any] | None = None, answer: Answer | None = None) -> None:
        """`answer` is what a middleware has put in the place of the usual error."""
        super().__init__("timed out")
        self.leftover = leftover
        self.answer = answer


class Execution(Protocol):
    """A place that runs calls."""

    async def call(self, arguments: Any) -> Answer:
        """Return the answer to one call. Raises TimedOut, and all errors of a coroutine: see CallGuard."""

    def close(self) -> None:
        """Stop the calls that can be stopped, without waiting."""


def judged(error: BaseException) -> tuple[BaseException, Verdict, float | None]:
    """Return the error of a failed task, its verdict, and the delay it requests. Never raises.

    A Retry with an invalid delay is a failure, with the invalid delay as the error.
    """
    if is_a(error, Reject):
        return error, "reject", None
    if is_a(error, Retry):
        try:
            return error, "retry", error.seconds()
        except BaseException as problem:  # a subclass may do anything
            return problem, "failed", None
    return error, "failed", None


def refusal(kind: str, error: BaseException) -> Answer:
    """Return the error result for an `error` of the parser or the processor. Never raises."""
    error, verdict, delay = judged(error)
    text = f"{kind}: {error_text(error)}"
    return Answer(failure(text), text, verdict, delay, error)


def timed_out(timeout: float | None) -> Answer:
    """Return the error result of a task that exceeded its time limit, in seconds."""
    text = f"Processing error: timed out after {timeout:g} s"
    return Answer(failure(text), text)


def unencoded(value: Any) -> Any:
    """Return `value`. Raises TypeError if it is an awaitable, which is no result."""
    if is_awaitable(value):
        raise TypeError("an awaitable is no result")
    return value


def unstored(value: Any) -> bytes:
    """Return the result of a message: the `value` of its handler is stored nowhere, and need not be JSON.

    Raises TypeError if it is an awaitable.
    """
    if value is not None:
        unencoded(value)
    return b""


def compute(processor: Callable[[Any], Any], arguments: Any, encode: Encode = success) -> Answer:
    """Call a plain processor in the current thread and encode its value. Never raises."""
    value = None
    try:
        value = processor(arguments)
        return Answer(encode(value))
    except BaseException as error:
        return refusal("Processing error", unawaited(value) or error)


def compute_or_defer(processor: Callable[[Any], Any], arguments: Any, encode: Encode) -> Answer | Awaitable[Any]:
    """Call a plain processor in a thread and encode its value; return an awaitable for the event loop."""
    try:
        value = processor(arguments)
        return value if is_awaitable(value) else Answer(encode(value))
    except BaseException as error:
        return refusal("Processing error", error)


async def within(timeout: float | None, value: Any) -> Any:
    """Await `value` and return the result. Raises TimedOut after `timeout` seconds."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await resolved(value)
    except TimeoutError:
        if limit.expired():
            raise TimedOut from None
        raise


class Coroutines:
    """Calls of a coroutine function, on the event loop."""

    def __init__(self, processor: Callable[[Any], Any], timeout: float | None, encode: Encode = success) -> None:
        self._processor = processor
        self._timeout = timeout
        self._encode = encode

    async def call(self, arguments: Any) -> Answer:
        if self._timeout is not None:
            return Answer(self._encode(await within(self._timeout, self._processor(arguments))))
        value = await self._processor(arguments)
        if is_awaitable(value):
            value = await resolved(value)
        return Answer(self._encode(value))

    def close(self) -> None:
        """Do nothing: the runner cancels coroutines."""


class Threads:
    """Calls of a plain function, in threads."""

    def __init__(
        self,
        processor: Callable[[Any], Any],
        timeout: float | None,
        threads: ThreadPool | OwnThreads,
        encode: Encode = success,
    ) -> None:
        self._processor = processor
        self._encode = encode
        self._timeout = timeout
        self._threads = threads

    async def call(self, arguments: Any) -> Answer:
        clock = asyncio.get_running_loop().time
        started = clock()
        run = copy_context().run  # tasks would share the context of a pool's thread
        call = self._threads.run(run, compute_or_defer, self._processor, arguments, self._encode)
        if self._timeout is not None and not (await asyncio.wait({call}, timeout=self._timeout))[0]:
            call.add_done_callback(_discard_result)
            raise TimedOut(call)
        answer = await call
        if isinstance(answer, Answer):
            return answer
        remaining = None if self._timeout is None else max(0.0, started + self._timeout - clock())
        return Answer(self._encode(await within(remaining, answer)))

    def close(self) -> None:
        self._threads.close()


class Inline:
    """Calls of a plain function, on the event loop."""

    def __init__(self, processor: Callable[[Any], Any], encode: Encode) -> None:
        self._processor = processor
        self._encode = encode

    async def call(self, arguments: Any) -> Answer:
        value = self._processor(arguments)
        if (error := unawaited(value)) is not None:
            raise error
        return Answer(self._encode(value))

    def close(self) -> None:
        """Do nothing: a call ends before the loop goes on."""


def _discard_result(call: asyncio.Future[Any]) -> None:
    """Discard an awaitable that `call` returned after its time limit."""
    if not call.cancelled() and call.exception() is None:
        discard(call.result())
