"""Waiting for the queue to come back: the one loop, for workers, cron jobs and the start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis_worker.engine.retry import backoff
from redis_worker.engine.waiting import first_of
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey, Disconnected
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.outages import Outages

logger = library_logger()

T = TypeVar("T")


class GivenUp(Exception):
    """Raised by `Reconnect.call` when its `end` is set while the queue is away, or a key is damaged."""


class Reconnect:
    """A retry of calls while the queue is away: at once, then after up to 1 s, doubling to 60 s, with jitter.

    Callers share one outage: the first success wakes the others.
    """

    def __init__(
        self, observer: Observer, *, first: float = 1.0, longest: float = 60.0, damaged_too: bool = False
    ) -> None:
        """`first` and `longest` limit the pauses, in seconds; `damaged_too` retries calls that raise DamagedKey."""
        self._observer = observer
        self._first = first
        self._longest = longest
        self._retried = (Disconnected, DamagedKey) if damaged_too else (Disconnected,)
        self._since: float | None = None
        self._back = asyncio.Event()

    @property
    def away(self) -> bool:
        """True while the queue is unreachable."""
        return self._since is not None

    async def call(self, operation: Callable[[], Awaitable[T]], end: asyncio.Event | None = None) -> T:
        """Return the result of `operation`, retried until it no longer raises Disconnected. The hot path.

        Raises GivenUp if it still fails when `end` is set.
        """
        try:
            result = await operation()
        except self._retried as error:
            result = await self._retry(operation, error, end)
        if self._since is not None:
            seconds, self._since = time.monotonic() - self._since, None
            self._back.set()
            self._observer.reconnected(seconds)
        return result

    async def _retry(self, operation: Callable[[], Awaitable[T]], error: Exception, end: asyncio.Event | None) -> T:
        from tenacity import AsyncRetrying, retry_if_exception_type  # takes 7 ms, and only an outage needs it

        async def attempt() -> T:
            nonlocal error
            if end is not None and end.is_set():
                raise GivenUp(str(error)) from None
            try:
                return await operation()
            except self._retried as again:
                error = again
                raise

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(self._retried),
            wait=lambda state: backoff(self._first, self._longest, state.attempt_number - 1),
            sleep=lambda seconds: self._sleep(seconds, error, end),
        )
        return await retrying(attempt)

    async def _sleep(self, seconds: float, error: Exception, end: asyncio.Event | None) -> None:
        """Report `error`, and wait until `end` or, unless it is a damaged key, until another caller succeeds."""
        events = [] if end is None else [end]
        if isinstance(error, DamagedKey):
            self._observer.damaged(error)
        else:
            if self._since is None:
                self._since = time.monotonic()
                self._back.clear()
            self._observer.disconnected(error, seconds)
            events.append(self._back)
        await first_of(asyncio.sleep(seconds), *(event.wait() for event in events))


class OutageLog(Observer):
    """An observer that logs each outage once, at its beginning and its end."""

    def __init__(self, server: str = "Redis") -> None:
        """`server` names what is away."""
        self._server = server
        self._away = False
        self._damaged = Outages()

    def disconnected(self, error: Exception, delay: float) -> None:  # noqa: ARG002 - the port's signature
        if not self._away:
            self._away = True
            logger.warning("%s is away (%s)", self._server, error)

    def reconnected(self, seconds: float) -> None:
        self._away = False
        logger.warning("%s is back after %.1f s", self._server, seconds)

    def damaged(self, error: DamagedKey) -> None:
        if self._damaged.begins(error.key):
            logger.error("%s", error)
