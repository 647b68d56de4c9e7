"""A connection that redis-py has opened, and whose received bytes go to hiredis at once."""

from __future__ import annotations

import asyncio
from typing import Any

from hiredis import Reader
from redis.exceptions import ConnectionError, InvalidResponse

from redis_worker.broker.connection.freshness import has_ended

INCOMPLETE = object()
"""The reader's answer as long as a reply is not whole."""
_CLOSED = "Connection closed by server."


class RawConnection(asyncio.Protocol):
    """Protocol in place of redis-py's, which reads through a StreamReader and several coroutines per reply.

    redis-py's own is still notified of the end of the connection, for callers that wait until it is closed.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.lost = False
        """True once the connection has ended, or has received an unexpected reply."""
        error_class = connection._parser.parse_error
        self.reader = Reader(protocolError=InvalidResponse, replyError=error_class, notEnoughData=INCOMPLETE)
        self.transport = connection._writer.transport
        self._redis_py_protocol = self.transport.get_protocol()
        self.transport.set_protocol(self)

    @property
    def is_usable(self) -> bool:
        """True until the connection ends, also if it was aborted and the event loop has not reported its end."""
        return not (self.lost or self.transport.is_closing())

    async def has_ended(self) -> bool:
        """Return True if the connection has ended, also if its event loop has not run since."""
        return await has_ended(self.transport, lambda: self.lost)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or ConnectionError(_CLOSED))
        self._redis_py_protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._redis_py_protocol.pause_writing()

    def resume_writing(self) -> None:
        self._redis_py_protocol.resume_writing()

    def fail(self, error: Exception) -> None:
        """Mark the connection as unusable, and fail those that wait for it."""
        raise NotImplementedError
