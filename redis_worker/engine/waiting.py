"""Waiting for an event, with a limit."""

from __future__ import annotations

import asyncio


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Whether `event` is set within so many seconds (None: for ever).

    Not by asyncio.wait_for, which before Python 3.12 swallows a cancellation that comes together with the event.
    """
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
