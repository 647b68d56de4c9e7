"""What a queue does about being paused: it claims nothing, asks again after a while, and says so."""

from __future__ import annotations

import asyncio

from redis_worker.ports import Observer

# How long to wait before a paused queue is asked again, in seconds: a resumed one is worked on within that.
_ASK_AGAIN = 0.5


class Pause:
    """Whether the queue was paused when it was last asked. Who pauses it is told of in control.py."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.on = False

    def note(self, on: bool) -> None:
        """Take down what the queue has answered, and tell the observer of a change."""
        if on == self.on:
            return
        self.on = on
        if on:
            self._observer.paused()
        else:
            self._observer.resumed()

    async def sit_out(self) -> None:
        """Wait a little, before the paused queue is asked again."""
        await asyncio.sleep(_ASK_AGAIN)
