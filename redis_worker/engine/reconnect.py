"""Reconnecting, shared by all callers of the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random_exponential

from redis_worker.engine.waiting import happens
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import Disconnected

T = TypeVar("T")


class Reconnect:
    """A retry of calls while the queue is away: at once, then after up to 1 s, doubling to 60 s, with jitter.

    Callers share one outage: the first success wakes the others.
    """

    def __init__(self, observer: Observer, first: float = 1.0, longest: float = 60.0) -> None:
        self._observer = observer
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(Disconnected),
            # Half of each delay is fixed and half is jitter, so that a fleet does not return in step.
            wait=wait_exponential(multiplier=first / 2, max=longest / 2)
            + wait_random_exponential(multiplier=first / 2, max=longest / 2),
            sleep=self._sleep,
            before_sleep=self._away,
            reraise=True,
        )
        self._since: float | None = None
        self._back = asyncio.Event()
        self._back.set()

    @property
    def away(self) -> bool:
        """True while the queue is unreachable."""
        return self._since is not None

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `operation`, retried until it no longer raises Disconnected."""
        try:
            result = await operation()
        except Disconnected:
            result = await self._retrying(self._again, operation)
        if self._since is not None:
            seconds, self._since = time.monotonic() - self._since, None
            self._back.set()
            self._observer.reconnected(seconds)
        return result

    async def _again(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await operation()

    def _away(self, state: RetryCallState) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self._back.clear()
        error = state.outcome.exception() if state.outcome else None
        delay = state.next_action.sleep if state.next_action else 0.0
        self._observer.disconnected(error if isinstance(error, Exception) else Disconnected(), delay)

    async def _sleep(self, seconds: float) -> None:
        await happens(self._back, seconds)
