"""How late the event loop is."""

from __future__ import annotations

import asyncio

_BEAT = 0.25
_WINDOW = 10.0


class LoopLag:
    """Measures how much later than asked a sleep ends."""

    def __init__(self) -> None:
        self._longest = self._before = 0.0

    @property
    def seconds(self) -> float:
        """The longest of the last 10 to 20 s, whoever has asked before."""
        return max(self._longest, self._before)

    async def run(self) -> None:
        """Measure, until cancelled."""
        clock = asyncio.get_running_loop().time
        window = clock()
        while True:
            asked = clock()
            await asyncio.sleep(_BEAT)
            self._longest = max(self._longest, clock() - asked - _BEAT)
            if clock() - window > _WINDOW:
                window, self._before, self._longest = clock(), self._longest, 0.0
