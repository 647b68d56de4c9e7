"""Resources per event loop: each loop in each process has one, closed when the loop shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from redis_worker.broker.connection.forks import watch_forks


class Closable(Protocol):
    """A resource of one event loop."""

    async def close(self) -> None:
        """Close it, in its event loop."""

    def leave(self, *, forked: bool) -> None:
        """Release it without its event loop, which is closed, or belongs to the parent of a fork."""


T = TypeVar("T", bound=Closable)


class _Entry(NamedTuple, Generic[T]):
    resource: T
    end: AsyncGenerator[None, None]
    finalizer: weakref.finalize[..., Any]
    """Closes the resource when its owner is collected; its reference keeps the resource alive until then."""


class PerLoop(Generic[T]):
    """One `T` per event loop, created on first use.

    In a loop run by asyncio.run() it is closed at the end of the loop, even without a call of `close`.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._entries: dict[asyncio.AbstractEventLoop, _Entry[T]] = {}
        watch_forks(self)

    def get(self) -> T:
        """Return the resource of the running loop."""
        loop = asyncio.get_running_loop()
        entry = self._entries.get(loop)
        if entry is None:
            self._leave_closed()
            entry = self._entries[loop] = _new_entry(self, self._make(), loop)
        return entry.resource

    async def close(self) -> None:
        """Close all: those of other loops as soon as these run, those of closed loops at once."""
        self._leave_closed()
        here = asyncio.get_running_loop()
        for loop, entry in [*self._entries.items()]:
            if loop is not here and loop.is_running():
                del self._entries[loop]
                entry.finalizer()
        if own := self._entries.pop(here, None):
            own.finalizer.detach()
            await _end(own.end)

    def forked(self) -> None:
        """See Inheritable."""
        self._leave(list(self._entries), forked=True)

    def _leave_closed(self) -> None:
        self._leave([loop for loop in list(self._entries) if loop.is_closed()], forked=False)

    def _leave(self, loops: list[asyncio.AbstractEventLoop], *, forked: bool) -> None:
        for loop in loops:
            if entry := self._entries.pop(loop, None):
                entry.finalizer.detach()
                _leave(entry.resource, entry.end, forked=forked)


def _new_entry(owner: PerLoop[T], resource: T, loop: asyncio.AbstractEventLoop) -> _Entry[T]:
    # On shutdown, an event loop closes the asynchronous generators started in it: the only hook there is.
    end = _close_at_end(resource)
    with contextlib.suppress(StopIteration):
        end.__anext__().send(None)
    finalizer = weakref.finalize(owner, _on_collected, resource, end, loop)
    finalizer.atexit = False
    return _Entry(resource, end, finalizer)


def _on_collected(resource: Closable, end: AsyncGenerator[None, None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.call_soon_threadsafe(lambda: loop.create_task(_end(end)))
    except RuntimeError:  # the loop is closed
        _leave(resource, end, forked=False)


def _leave(resource: Closable, end: AsyncGenerator[None, None], *, forked: bool) -> None:
    resource.leave(forked=forked)
    # A released resource closes without waiting, so this runs to its end here; otherwise its loop would be asked to
    # run it on collection.
    with contextlib.suppress(StopIteration, RuntimeError):
        end.aclose().send(None)


async def _close_at_end(resource: Any) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await resource.close()


async def _end(generator: AsyncGenerator[None, None]) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closing it
        await generator.aclose()
