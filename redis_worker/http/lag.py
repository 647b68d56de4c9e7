"""The lag of the event loop."""

from __future__ import annotations

import asyncio

_BEAT = 0.25
_WINDOW = 10.0


class LoopLag:
    """A measure of how late sleeps end."""

    def __init__(self) -> None:
        self._longest = self._previous = 0.0

    @property
    def seconds(self) -> float:
        """The longest lag of the last 10 to 20 s."""
        return max(self._longest, self._previous)

    async def run(self) -> None:
        """Measure the lag until cancelled."""
        clock = asyncio.get_running_loop().time
        window = clock()
        while True:
            started = clock()
            await asyncio.sleep(_BEAT)
            self._longest = max(self._longest, clock() - started - _BEAT)
            if clock() - window > _WINDOW:
                window, self._previous, self._longest = clock(), self._longest, 0.0
