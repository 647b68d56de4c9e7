"""Slots: how many tasks may run at once. A hard cap, first come, first served."""

from __future__ import annotations

import asyncio


class Slots:
    """So many may be taken at once; several topics may share them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        self._semaphore = asyncio.Semaphore(count)

    @property
    def free(self) -> int:
        """How many can be taken at once, just now."""
        return self._count - self._taken

    async def take(self) -> None:
        """Take one, when one is free."""
        await self._semaphore.acquire()
        self._taken += 1

    def give_back(self) -> None:
        """Have one taken by the next who waits."""
        self._taken -= 1
        self._semaphore.release()
