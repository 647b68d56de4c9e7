"""Waiting for an event, with a limit."""

from __future__ import annotations

import asyncio


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for `event`; return False if it is not set within `seconds` (None: no limit).

    asyncio.wait_for would swallow a cancellation that comes together with the event, before Python 3.12.
    """
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
