"""The lifespan of a worker: what its functions need, opened before the first task and closed after the last."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from redis_worker.vocabulary.error_text import error_text
from redis_worker.vocabulary.errors import ConfigurationError, LifespanFailed

LifespanFunction: TypeAlias = Callable[[], AsyncGenerator[Any, None] | AsyncIterator[Any]]
"""An asynchronous generator function that yields once: the resources of the functions."""

# Tasks, threads and calls inherit it from the context in which their runner was made.
_RESOURCES: ContextVar[Any] = ContextVar("redis_worker_resources")


def current_resources() -> Any:
    """Return what the lifespan of this worker has yielded. Raises LookupError where there is none."""
    try:
        return _RESOURCES.get()
    except LookupError:
        raise LookupError("there are no resources here: no lifespan runs, or this is not the code of a task") from None


def provide(resources: Any) -> None:
    """Have `current_resources` return `resources` in this context."""
    _RESOURCES.set(resources)


class Lifespan:
    """The start and the end of resources. It may run several times, and in several processes."""

    def __init__(self, function: LifespanFunction) -> None:
        """Raises ConfigurationError if it is no asynchronous generator function without arguments."""
        self._function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        if not inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"the lifespan {self.name} is no asynchronous generator: `async def` with a yield")
        if inspect.signature(function).parameters:
            raise ConfigurationError(f"the lifespan {self.name} takes arguments; it is called without any")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        """Start, and end with the block, which gets what it yields. Raises LifespanFailed."""
        manager = self._manager()
        resources = await self._started(manager)
        try:
            yield resources
        finally:
            try:
                await manager.__aexit__(None, None, None)
            except Exception as error:
                raise LifespanFailed(f"the lifespan {self.name} failed at its end: {_text(error)}") from error

    def start_here(self, loop: asyncio.AbstractEventLoop) -> AbstractAsyncContextManager[Any]:
        """Start it in `loop`, for this context, without an end; the caller keeps the return value.

        Raises LifespanFailed.
        """
        manager = self._manager()
        provide(loop.run_until_complete(self._started(manager)))
        return manager

    def _manager(self) -> AbstractAsyncContextManager[Any]:
        return asynccontextmanager(self._function)()

    async def _started(self, manager: AbstractAsyncContextManager[Any]) -> Any:
        try:
            return await manager.__aenter__()
        except Exception as error:
            raise LifespanFailed(f"the lifespan {self.name} failed at its start: {_text(error)}") from error


@asynccontextmanager
async def providing(lifespan: Lifespan | None) -> AsyncIterator[None]:
    """Have `current_resources` return, in this context, what `lifespan` yields during the block.

    Raises LifespanFailed.
    """
    if lifespan is None:
        yield
        return
    async with lifespan.running() as resources:
        provide(resources)
        yield


def in_children(lifespan: Lifespan | None, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function for child processes that calls `function` once `lifespan` has started there."""
    return function if lifespan is None else InChild(lifespan, function)


class InChild:
    """A function with a lifespan of its own in each child process; the end of that process ends it."""

    def __init__(self, lifespan: Lifespan, function: Callable[[Any], Any]) -> None:
        self._lifespan = lifespan
        self._function = function
        self._kept: Any = None
        self._error: LifespanFailed | None = None

    def open(self) -> None:
        """Start the lifespan. After a failure, every call raises it: the task then says why."""
        loop = asyncio.new_event_loop()
        try:
            self._kept = loop, self._lifespan.start_here(loop)
        except LifespanFailed as error:
            self._error = error

    def __call__(self, arguments: Any) -> Any:
        if self._error is not None:
            raise self._error
        return self._function(arguments)


def _text(error: BaseException) -> str:
    return " ".join(error_text(error, named=True).split())
