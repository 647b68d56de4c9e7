"""The places where a processor's code runs: the event loop and threads (processes: processes.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from redis_worker.engine.awaitables import discard, is_awaitable, resolved, unawaited
from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.vocabulary.error_text import error_text, is_a
from redis_worker.vocabulary.errors import Reject, Retry
from redis_worker.vocabulary.payload import failure, success

Verdict = Literal["failed", "retry", "reject"]


@dataclass(slots=True, eq=False)
class Answer:
    """A result ready to be stored, and its error text if it is one."""

    result: bytes
    error: str | None = None
    verdict: Verdict = "failed"
    """Of an error: what the processor makes of it."""
    delay: float | None = None
    """With "retry": after how many seconds, if the processor says so."""
    exception: BaseException | None = None
    """The exception behind the error."""


class TimedOut(Exception):
    """The time limit is over; `leftover` is what goes on regardless, and keeps its slot until it ends."""

    def __init__(self, leftover: asyncio.Future[Any] | None = None) -> None:
        super().__init__("timed out")
        self.leftover = leftover


class Execution(Protocol):
    """Runs calls somewhere."""

    async def call(self, arguments: list[Any]) -> Answer:
        """Return the answer to one call. Raises TimedOut, and whatever a coroutine raises: see CallGuard."""

    def close(self) -> None:
        """Stop what can be stopped; wait for nothing."""


def judged(error: BaseException) -> tuple[BaseException, Verdict, float | None]:
    """Return the error that a task failed with, its verdict, and the delay that it asks for. Never raises.

    A Retry with a delay that cannot be used is a failure, of which the error is the reason.
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
    """Return the error result for `error`, which the parser or the processor raised. Never raises."""
    error, verdict, delay = judged(error)
    text = f"{kind}: {error_text(error)}"
    return Answer(failure(text), text, verdict, delay, error)


def timed_out(timeout: float | None) -> Answer:
    """The error result of a task whose time limit of so many seconds is over."""
    text = f"Processing error: timed out after {timeout:g} s"
    return Answer(failure(text), text)


def compute(processor: Callable[[list[Any]], Any], arguments: list[Any]) -> Answer:
    """Call a plain processor and encode its value, where the call is made. Raises nothing."""
    value = None
    try:
        value = processor(arguments)
        return Answer(success(value))
    except BaseException as error:
        return refusal("Processing error", unawaited(value) or error)


def compute_or_defer(processor: Callable[[list[Any]], Any], arguments: list[Any]) -> Answer | Awaitable[Any]:
    """Do the same in a thread, and return an awaitable as it is: the event loop awaits it."""
    try:
        value = processor(arguments)
        return value if is_awaitable(value) else Answer(success(value))
    except BaseException as error:
        return refusal("Processing error", error)


async def within(timeout: float | None, value: Any) -> Any:
    """Return the value behind the awaitable `value`. Raises TimedOut after `timeout` seconds."""
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

    def __init__(self, processor: Callable[[list[Any]], Any], timeout: float | None) -> None:
        self._processor = processor
        self._timeout = timeout

    async def call(self, arguments: list[Any]) -> Answer:
        if self._timeout is not None:
            return Answer(success(await within(self._timeout, self._processor(arguments))))
        value = await self._processor(arguments)
        if is_awaitable(value):
            value = await resolved(value)
        return Answer(success(value))

    def close(self) -> None:
        """Coroutines are cancelled by the runner."""


class Threads:
    """Calls of a plain function, in threads."""

    def __init__(self, processor: Callable[[list[Any]], Any], timeout: float | None, concurrency: int) -> None:
        self._processor = processor
        self._timeout = timeout
        self._pool = ThreadPool(concurrency, "redis-worker")

    async def call(self, arguments: list[Any]) -> Answer:
        clock = asyncio.get_running_loop().time
        began = clock()
        run = copy_context().run  # a pool's thread has a context of its own, which tasks would share
        call = self._pool.run(run, compute_or_defer, self._processor, arguments)
        if self._timeout is not None and not (await asyncio.wait({call}, timeout=self._timeout))[0]:
            call.add_done_callback(discard_result)
            raise TimedOut(call)
        answer = await call
        if isinstance(answer, Answer):
            return answer
        left = None if self._timeout is None else max(0.0, began + self._timeout - clock())
        return Answer(success(await within(left, answer)))

    def close(self) -> None:
        self._pool.close()


def discard_result(call: asyncio.Future[Any]) -> None:
    """Discard an awaitable that `call`, which has ended after its time limit, returned."""
    if not call.cancelled() and call.exception() is None:
        discard(call.result())
