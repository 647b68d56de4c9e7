"""Where a processor's code runs: on the event loop or in threads (in processes: processes.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Literal, NamedTuple, Protocol

from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.vocabulary.errors import Reject, Retry
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.payload import failure, success

# What a processor may raise without harm to its worker: a processor that calls sys.exit() has failed,
# as one that lets somebody else's cancellation out has; neither ends the worker.
CAUGHT = (Exception, SystemExit, asyncio.CancelledError, GeneratorExit)


_new = tuple.__new__

Verdict = Literal["failed", "retry", "reject"]


class Answer(NamedTuple):
    """A result ready to be stored, and its error text if it is one."""

    result: bytes
    error: str | None = None
    verdict: Verdict = "failed"
    """Of an error: what the processor makes of it."""
    delay: float | None = None
    """With "retry": after how many seconds, if the processor says so."""


class TimedOut(Exception):
    """The time limit is over; `leftover` is what goes on regardless, and keeps its slot until it ends."""

    def __init__(self, leftover: asyncio.Future[Any] | None = None) -> None:
        super().__init__("timed out")
        self.leftover = leftover


class Execution(Protocol):
    """Runs calls somewhere."""

    async def call(self, arguments: list[Any]) -> Answer:
        """The answer to one call. Raises TimedOut."""

    def close(self) -> None:
        """Stop what can be stopped; wait for nothing."""


def refusal(kind: str, error: BaseException) -> Answer:
    """The error result for `error`, which the parser or the processor raised."""
    text = f"{kind}: {str(error) or type(error).__name__}"
    if isinstance(error, KeyError):
        text = f"{kind}: KeyError: {error}"
    if isinstance(error, Retry):
        return Answer(failure(text), text, "retry", error.delay)
    return Answer(failure(text), text, "reject" if isinstance(error, Reject) else "failed")


def timed_out(timeout: float | None) -> Answer:
    """The error result of a task whose time limit of so many seconds is over."""
    text = f"Processing error: timed out after {timeout:g} s"
    return Answer(failure(text), text)


def compute(processor: Callable[[list[Any]], Any], arguments: list[Any]) -> Answer:
    """Call a plain processor and encode its value, where the call is made. Raises nothing of its making."""
    try:
        return Answer(success(processor(arguments)))
    except CAUGHT as error:
        return refusal("Processing error", error)


class Coroutines:
    """Calls of a coroutine function, on the event loop."""

    def __init__(self, processor: Callable[[list[Any]], Any], timeout: float | None) -> None:
        self._processor = processor
        self._timeout = timeout

    async def call(self, arguments: list[Any]) -> Answer:
        try:
            if self._timeout is None:
                return _new(Answer, (success(await self._processor(arguments)), None, "failed", None))
            return await self._limited(arguments)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the pool cancels: the task is handed back, not answered
            return refusal("Processing error", error)
        except TimedOut:
            raise
        except CAUGHT as error:
            return refusal("Processing error", error)

    async def _limited(self, arguments: list[Any]) -> Answer:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                value = await self._processor(arguments)
        except TimeoutError:
            if limit.expired():
                raise TimedOut from None
            raise
        return Answer(success(value))

    def close(self) -> None:
        """Coroutines are cancelled by who runs them."""


class Threads:
    """Calls of a plain function, in threads."""

    def __init__(self, processor: Callable[[list[Any]], Any], timeout: float | None, concurrency: int) -> None:
        self._processor = processor
        self._timeout = timeout
        self._pool = ThreadPool(concurrency, "redis-worker")

    async def call(self, arguments: list[Any]) -> Answer:
        if PART.get() is None:
            call = self._pool.run(compute, self._processor, arguments)
        else:  # a pool's threads do not take the context over, and copying it takes its time
            run = copy_context().run
            call = self._pool.run(run, compute, self._processor, arguments)
        if self._timeout is None:
            return await call
        done, _ = await asyncio.wait({call}, timeout=self._timeout)
        if not done:
            raise TimedOut(call)
        return call.result()

    def close(self) -> None:
        self._pool.close()
