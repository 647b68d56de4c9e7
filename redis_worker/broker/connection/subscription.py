"""A subscription to a channel, on a connection that is pinged: one that was cut without a word is noticed."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any

from redis_worker.broker.connection.connection import Connection
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.logger import library_logger

if TYPE_CHECKING:
    from typing import Self

logger = library_logger()

PING_EVERY = 2.0
"""How long a connection that only listens may be silent before it is pinged, in seconds."""
PING_PATIENCE = 3.0
"""How long the reply to a ping may take, in seconds, before the connection is replaced."""
ONE_MORE_LOOK = 0.1
"""How long a reply that is overdue is looked for once more, in seconds."""
# How long connecting and subscribing may take, in seconds.
_OPEN_PATIENCE = 5.0


class Subscription:
    """Hears what is published on a channel, in an `async with` block.

    Its calls raise what redis-py raises, TimeoutError, and Disconnected where a ping is not answered.
    """

    def __init__(self, connection: Connection, channel: str) -> None:
        """`connection` is used for nothing else: it is cut when it does not answer."""
        self._connection = connection
        self._channel = channel
        self._pubsub: Any = connection.client.pubsub()
        self._heard = 0.0
        self._pinged: float | None = None

    async def __aenter__(self) -> Self:
        """Subscribe; that the server agrees is not waited for."""
        try:
            async with asyncio.timeout(_OPEN_PATIENCE):
                await self._pubsub.subscribe(self._channel)
        except BaseException:
            await self._pubsub.aclose()
            raise
        self._heard = _now()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pubsub.aclose()

    async def message(self, seconds: float) -> bytes | None:
        """Return the next message, or None when there is none within so many seconds."""
        end = _now() + seconds
        while True:
            await self._ping_if_silent()
            overdue = self._pinged is not None and _now() - self._pinged > PING_PATIENCE
            # The reply may be there, and this event loop have stood still: it is looked for once more.
            wait = ONE_MORE_LOOK if overdue else max(0.001, min(end - _now(), PING_EVERY))
            heard = await self._pubsub.get_message(timeout=wait)
            if heard is not None:
                self._heard, self._pinged = _now(), None
                if heard["type"] == "message":
                    data: bytes = heard["data"]
                    return data
            elif overdue:
                logger.warning("the connection that listens on %s does not answer: it is replaced", self._channel)
                await self._connection.cut()
                raise Disconnected("a ping was not answered")
            if _now() >= end:
                return None

    async def _ping_if_silent(self) -> None:
        now = _now()
        if self._pinged is None and now - self._heard >= PING_EVERY:
            self._pinged = now
            await self._pubsub.ping()


def _now() -> float:
    return asyncio.get_running_loop().time()
