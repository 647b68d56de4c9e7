"""Turns: a limit on concurrent calls, in order of arrival; all waiters can be failed at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """A semaphore that is almost free for a call that need not wait, and that can fail all waiters."""

    def __init__(self, at_once: int) -> None:
        self.free = at_once
        """Free turns. If positive, decrement it and skip `wait`: no call is waiting then."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for a turn, which the caller must give back. Raises the exception that `fail` creates."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back()
            raise

    def give_back(self) -> None:
        """End a turn, and give it to the longest waiter."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def fail(self, error: Callable[[], Exception]) -> None:
        """Fail all waiters, each with a new exception."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error())
