"""Waiting: for events with a limit, and for a task to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for `event`; return False if it is not set within `seconds` (None: no limit).

    asyncio.wait_for would swallow a cancellation that comes together with the event, before Python 3.12.
    """
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def set_again(event: asyncio.Event, seconds: float) -> None:
    """Clear `event`, and wait until it is set; set it after `seconds`: a timer costs less than a time limit."""
    event.clear()
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


async def first_of(*work: Awaitable[Any], seconds: float | None = None) -> None:
    """Wait until one of `work` is done, at most `seconds`; then cancel the coroutines among it, but no task or future.

    Raises nothing of theirs.
    """
    tasks = {asyncio.ensure_future(each) for each in work}
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for started in tasks.difference(work):
            started.cancel()


async def to_the_end(work: asyncio.Task[T], cancel: Callable[[], None]) -> T:
    """Return the result of `work`; if cancelled, call `cancel` and wait for `work` to end. Raises its exception."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancel()
        await asyncio.wait({work})
        if not work.cancelled() and (error := work.exception()):
            raise error from None
        raise
