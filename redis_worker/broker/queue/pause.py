"""The worker's side of a pause: it claims nothing, checks again periodically, and reports changes."""

from __future__ import annotations

import asyncio

from redis_worker.ports import Observer

# Seconds between checks of a paused queue: after `resume`, work continues within that time.
_CHECK_INTERVAL = 0.5


class Pause:
    """Pause state of a queue as of the last check. Pausing itself is in control.py."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.on = False

    def update(self, on: bool) -> None:
        """Store the result of a check, and notify the observer of a change."""
        if on == self.on:
            return
        self.on = on
        if on:
            self._observer.paused()
        else:
            self._observer.resumed()

    async def wait(self) -> None:
        """Wait before the next check of a paused queue."""
        await asyncio.sleep(_CHECK_INTERVAL)
