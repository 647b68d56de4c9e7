"""Turns: so many calls at once, first come, first served; and all who wait can be told to give up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """A semaphore that costs a call that need not wait next to nothing, and whose waiters can be made to fail."""

    def __init__(self, at_once: int) -> None:
        self.free = at_once
        """Take one of these, if there is one, without a call: there is nobody waiting then. Else `wait`."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return with a turn, which is to be given back. Raises what `fail` makes."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back()
            raise

    def give_back(self) -> None:
        """End a turn: it goes to who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def fail(self, error: Callable[[], Exception]) -> None:
        """Have all fail that wait, each with an exception of its own."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error())
