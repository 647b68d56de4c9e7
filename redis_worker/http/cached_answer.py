"""A cached answer, made at most once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SECONDS: Final = 1.0
"""The maximum age of an answer."""


class CachedAnswer(Generic[T]):
    """The result of `make`, cached for a second; concurrent callers share one call."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make = make
        self._making: asyncio.Future[T] | None = None
        self._made_at = 0.0

    async def get(self) -> T:
        """Return the answer. Raises the errors of `make`, which are not cached."""
        if self._making is None or (self._making.done() and self._is_old(self._making)):
            self._making = asyncio.ensure_future(self._made())
        # A cancelled caller must not cancel the answer for the others.
        return await asyncio.shield(self._making)

    async def _made(self) -> T:
        try:
            return await self._make()
        finally:
            self._made_at = time.monotonic()

    def _is_old(self, made: asyncio.Future[T]) -> bool:
        return time.monotonic() - self._made_at >= SECONDS or made.cancelled() or made.exception() is not None

    async def close(self) -> None:
        """Cancel the call under way."""
        if self._making is not None and not self._making.done():
            self._making.cancel()
            await asyncio.wait({self._making})
