"""Slots: a hard limit on the tasks that run at once, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A number of slots; several topics may share them."""

    def __init__(self, count: int) -> None:
        self.free = count
        """The number of free slots."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Take a slot if one is free. The hot path."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def take(self) -> None:
        """Take a slot, once one is free."""
        if self.take_now():
            return
        slot = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if not slot.cancelled():
                self.give_back()  # it came together with the cancellation
            raise

    def give_back(self) -> None:
        """Free a slot: the next waiter has it at once."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self.free += 1
