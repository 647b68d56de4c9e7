"""A subscription to a channel, on a connection that is pinged, so that a silent loss is detected."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from redis.exceptions import RedisError

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.packing import is_plain
from redis_worker.broker.connection.raw_connection import INCOMPLETE, RawConnection
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


def _takes_none(_: bytes) -> bool:
    return False


class Subscription:
    """A subscription to a channel, as an `async with` block.

    Its calls raise redis-py's exceptions, TimeoutError, and Disconnected if a ping gets no reply.
    """

    def __init__(self, connection: Connection, channel: str, takes: Callable[[bytes], bool] = _takes_none) -> None:
        """`connection` must have no other use: it is cut when it does not answer.

        `takes` may be called with a message as soon as it arrives; if it returns True, `message` leaves that one out.
        """
        self._connection = connection
        self._channel = channel
        self._takes = takes
        self._pubsub: Any = connection.client.pubsub()
        self._listener: _Listener | None = None
        self._received_at = 0.0
        self._pinged_at: float | None = None
        self.is_confirmed = False
        """True once the server has confirmed the subscription: every later message arrives, or the connection ends."""

    async def __aenter__(self) -> Self:
        """Subscribe, without waiting for the confirmation."""
        try:
            async with asyncio.timeout(_OPEN_PATIENCE):
                if is_plain(self._connection.client):
                    await self._pubsub.connect()
                    self._listener = _Listener(self._pubsub.connection, self._takes)
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
            kind, data = await (self._listener.next(wait) if self._listener else self._next(wait))
            if kind is not None:
                self._received_at, self._pinged_at = _now(), None
                self.is_confirmed = True  # the confirmation is the first to arrive
                if kind == b"message":
                    message: bytes = data
                    return message
            elif overdue:
                logger.warning("the connection subscribed to %s does not answer: replacing it", self._channel)
                await self._connection.cut()
                raise Disconnected("no reply to a ping")
            if _now() >= end:
                return None

    async def _next(self, seconds: float) -> _Received:
        """Return what arrives next, by redis-py: in a cluster, and by clients that are not plain."""
        received = await self._pubsub.get_message(timeout=seconds)
        return _Received(received["type"].encode(), received["data"]) if received else _NOTHING

    async def _ping_if_silent(self) -> None:
        now = _now()
        if self._pinged_at is None and now - self._received_at >= PING_EVERY:
            self._pinged_at = now
            await self._pubsub.ping()


class _Received(NamedTuple):
    """A message, or the reply to a subscription or a ping."""

    kind: bytes | None
    """The kind, as the server names it; None if nothing arrived in time."""
    data: Any


_NOTHING = _Received(None, None)


class _Listener(RawConnection):
    """A subscribed connection; one caller at a time waits for what arrives."""

    def __init__(self, connection: Any, takes: Callable[[bytes], bool]) -> None:
        super().__init__(connection)
        self._takes = takes
        self._arrived: deque[_Received] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None

    async def next(self, seconds: float) -> _Received:
        """Return what arrives next within `seconds`. Raises redis-py's exceptions once the connection has ended."""
        if not self._arrived and self._error is None:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = loop.call_later(seconds, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        if self._arrived:
            return self._arrived.popleft()
        if self._error is not None:
            raise self._error
        return _NOTHING

    def data_received(self, data: bytes) -> None:
        try:
            self.reader.feed(data)
            while (reply := self.reader.gets(False)) is not INCOMPLETE:
                if isinstance(reply, Exception):
                    raise reply
                # A push of RESP3, and in RESP2 an array, but for the reply to a ping.
                known = isinstance(reply, list) and len(reply) == 3
                if not (known and reply[0] == b"message" and self._takes(reply[2])):
                    self._arrived.append(_Received(reply[0], reply[2]) if known else _Received(b"pong", None))
        except RedisError as error:
            self.fail(error)
        if self._arrived:
            _wake(self._waiter)

    def fail(self, error: Exception) -> None:
        self.lost, self._error = True, error
        _wake(self._waiter)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _now() -> float:
    return asyncio.get_running_loop().time()
