"""An answer that is made at most once a second, however many ask for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SECONDS: Final = 1.0
"""An answer may be so old."""


class Remembered(Generic[T]):
    """What `make` returns, kept for a second; who asks while it is being made waits for that."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make = make
        self._making: asyncio.Future[T] | None = None
        self._since = 0.0

    async def get(self) -> T:
        """Return the answer. Raises what `make` raises; that is not kept."""
        if self._making is None or (self._making.done() and self._is_old(self._making)):
            self._making = asyncio.ensure_future(self._made())
        # One that goes away does not take the answer from the others.
        return await asyncio.shield(self._making)

    async def _made(self) -> T:
        try:
            return await self._make()
        finally:
            self._since = time.monotonic()

    def _is_old(self, made: asyncio.Future[T]) -> bool:
        return time.monotonic() - self._since >= SECONDS or made.cancelled() or made.exception() is not None

    async def close(self) -> None:
        """Make nothing more."""
        if self._making is not None and not self._making.done():
            self._making.cancel()
            await asyncio.wait({self._making})
