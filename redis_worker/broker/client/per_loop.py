"""What belongs to one event loop: each, in each process, has its own, which is closed when the loop is shut down."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from redis_worker.broker.connection.forks import watch_forks


class Closable(Protocol):
    """What can be had of an event loop."""

    async def close(self) -> None:
        """Close it, in its event loop."""

    def leave(self, *, forked: bool) -> None:
        """Let go of it without its event loop, which belongs to the parent of a fork, or is closed."""


T = TypeVar("T", bound=Closable)


class _Had(NamedTuple, Generic[T]):
    thing: T
    end: AsyncGenerator[None, None]
    forgotten: weakref.finalize[..., Any]
    """Ends it when its owner is collected, and refers to it, so that it is not collected before it is closed."""


class PerLoop(Generic[T]):
    """One `T` for each event loop, made when it is first asked for.

    That of a loop which asyncio.run() runs is closed at its end, whoever forgets to close it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._had: dict[asyncio.AbstractEventLoop, _Had[T]] = {}
        watch_forks(self)

    def get(self) -> T:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        had = self._had.get(loop)
        if had is None:
            self._leave_closed()
            had = self._had[loop] = _had(self, self._make(), loop)
        return had.thing

    async def close(self) -> None:
        """Close them all: those of other loops when these come to it, those of closed ones at once."""
        self._leave_closed()
        here = asyncio.get_running_loop()
        for loop, had in [*self._had.items()]:
            if loop is not here and loop.is_running():
                del self._had[loop]
                had.forgotten()
        if own := self._had.pop(here, None):
            own.forgotten.detach()
            await _end(own.end)

    def forked(self) -> None:
        """See Inheritable."""
        self._leave(list(self._had), forked=True)

    def _leave_closed(self) -> None:
        self._leave([loop for loop in list(self._had) if loop.is_closed()], forked=False)

    def _leave(self, loops: list[asyncio.AbstractEventLoop], *, forked: bool) -> None:
        for loop in loops:
            if had := self._had.pop(loop, None):
                had.forgotten.detach()
                _leave(had.thing, had.end, forked=forked)


def _had(owner: PerLoop[T], thing: T, loop: asyncio.AbstractEventLoop) -> _Had[T]:
    # An event loop closes the asynchronous generators begun in it when it is shut down: there is no other hook.
    end = _until_the_end(thing)
    with contextlib.suppress(StopIteration):
        end.__anext__().send(None)
    forgotten = weakref.finalize(owner, _forgotten, thing, end, loop)
    forgotten.atexit = False
    return _Had(thing, end, forgotten)


def _forgotten(thing: Closable, end: AsyncGenerator[None, None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.call_soon_threadsafe(lambda: loop.create_task(_end(end)))
    except RuntimeError:  # it is closed
        _leave(thing, end, forked=False)


def _leave(thing: Closable, end: AsyncGenerator[None, None], *, forked: bool) -> None:
    thing.leave(forked=forked)
    # What has been left closes without waiting, so that this runs to its end here: else its loop would be asked to
    # do that when it is collected.
    with contextlib.suppress(StopIteration, RuntimeError):
        end.aclose().send(None)


async def _until_the_end(thing: Any) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await thing.close()


async def _end(generator: AsyncGenerator[None, None]) -> None:
    with contextlib.suppress(RuntimeError):  # it is being closed, by its loop
        await generator.aclose()
