"""A subscription to a channel, on a connection that is pinged, so that a silent loss is detected."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from redis_worker.broker.connection.connection import Connection
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()

PING_EVERY = 2.0
"""Seconds of silence after which a listening connection is pinged."""
PING_PATIENCE = 3.0
"""Longest wait for the reply to a ping, in seconds, before the connection is replaced."""
LAST_WAIT = 0.1
"""Seconds of one last wait for an overdue reply."""
# Longest time for connecting and subscribing, in seconds.
_OPEN_PATIENCE = 5.0


class Subscription:
    """A subscription to a channel, as an `async with` block.

    Its calls raise redis-py's exceptions, TimeoutError, and Disconnected if a ping gets no reply.
    """

    def __init__(self, connection: Connection, channel: str) -> None:
        """`connection` must have no other use: it is cut when it does not answer."""
        self._connection = connection
        self._channel = channel
        self._pubsub: Any = connection.client.pubsub()
        self._received_at = 0.0
        self._pinged_at: float | None = None
        self.is_confirmed = False
        """True once the server has confirmed the subscription: every later message arrives, or the connection ends."""

    async def __aenter__(self) -> Self:
        """Subscribe, without waiting for the confirmation."""
        try:
            async with asyncio.timeout(_OPEN_PATIENCE):
                await self._pubsub.subscribe(self._channel)
        except BaseException as error:
            await self.__aexit__(type(error))
            raise
        self._received_at = _now()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not GeneratorExit:  # the event loop is gone, and nothing can be awaited
            await self._pubsub.aclose()

    async def message(self, seconds: float) -> bytes | None:
        """Return the next message, or None if none arrives within `seconds`."""
        end = _now() + seconds
        while True:
            await self._ping_if_silent()
            overdue = self._pinged_at is not None and _now() - self._pinged_at > PING_PATIENCE
            # If this event loop stood still, the reply may have arrived unread: wait once more.
            wait = LAST_WAIT if overdue else max(0.001, min(end - _now(), PING_EVERY))
            received = await self._pubsub.get_message(timeout=wait)
            if received is not None:
                self._received_at, self._pinged_at = _now(), None
                self.is_confirmed = True  # the confirmation is the first to arrive
                if received["type"] == "message":
                    data: bytes = received["data"]
                    return data
            elif overdue:
                logger.warning("the connection subscribed to %s does not answer: replacing it", self._channel)
                await self._connection.cut()
                raise Disconnected("no reply to a ping")
            if _now() >= end:
                return None

    async def _ping_if_silent(self) -> None:
        now = _now()
        if self._pinged_at is None and now - self._received_at >= PING_EVERY:
            self._pinged_at = now
            await self._pubsub.ping()


def _now() -> float:
    return asyncio.get_running_loop().time()
