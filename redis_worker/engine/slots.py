"""Slots: a hard limit on the tasks that run at once, first come, first served."""

from __future__ import annotations

import asyncio


class Slots:
    """A number of slots; several topics may share them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        self._semaphore = asyncio.Semaphore(count)

    @property
    def free(self) -> int:
        """The number of free slots."""
        return self._count - self._taken

    async def take(self) -> None:
        """Take a slot, once one is free."""
        await self._semaphore.acquire()
        self._taken += 1

    def give_back(self) -> None:
        """Free a slot for the next waiter."""
        self._taken -= 1
        self._semaphore.release()
