"""Connections kept between calls, with a short path from caller to socket for the latency of a lone task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError, RedisError

from redis_worker.broker.connection.freshness import has_ended
from redis_worker.broker.connection.turns import Turns

_INCOMPLETE = object()
_CLOSED = "Connection closed by server."
_SILENT = "the server does not answer"
# Error replies of a server that is loading, or is not the master any more: connect again.
_UNUSABLE = (ConnectionError, ReadOnlyError)
# Interval, in seconds, of the check for overdue replies.
_CHECK_INTERVAL = 1.0


class KeptConnections:
    """Kept connections of a client: redis-py's pool checks the socket each time a connection is taken.

    A connection that breaks fails its current call.
    """

    def __init__(self, client: Redis, abort: Callable[[], None], at_once: int, checked: bool) -> None:
        """`abort` aborts all connections of the client, including those being opened.

        At most `at_once` calls run concurrently; more wait for a turn in order of arrival. `checked`: a connection that
        ended while idle is replaced before anything is sent on it, for callers that do not retry.
        """
        self._pool: Any = client.connection_pool
        self._abort = abort
        self._checked = checked
        self._turns = Turns(at_once)
        self._idle: list[_KeptConnection] = []
        self._busy: set[_KeptConnection] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def exchange(self, commands: Sequence[Sequence[Any]], patience: float) -> list[Any]:
        """Send several commands at once and return their replies; an error reply as an exception.

        If a reply is missing `patience` seconds, or slightly more, after the call got its turn, all connections are
        aborted, so that the other calls do not each wait as long for the same server. A cancelled caller loses the
        replies and the connection. Raises redis-py's exceptions.
        """
        if self._turns.free:
            self._turns.free -= 1
        else:
            await self._turns.wait()
        try:
            kept = await self._take(patience)
        except BaseException:
            self._turns.give_back()
            raise
        loop = asyncio.get_running_loop()
        kept.deadline = loop.time() + patience
        if self._timer is None:
            self._timer = loop.call_later(_CHECK_INTERVAL, self._check_deadlines, loop)
        self._busy.add(kept)
        replies = None
        try:
            replies = await kept.exchange([pack_command(tuple(command)) for command in commands])
        finally:
            self._busy.discard(kept)
            self._turns.give_back()
            if replies is not None:
                self._idle.append(kept)
            else:
                # Later data would be taken for replies to other commands.
                await self._discard(kept)
        return replies

    def hurry(self, seconds: float) -> None:
        """Limit the remaining time of calls under way to `seconds`."""
        end = asyncio.get_running_loop().time() + seconds
        for kept in self._busy:
            kept.deadline = min(kept.deadline, end)

    def close(self) -> None:
        """Stop the timer. The client closes the connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_deadlines(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check the deadlines of all calls: one timer is cheaper than one per call."""
        now = loop.time()
        if any(now > kept.deadline for kept in self._busy):
            self._abort_all()
        self._timer = loop.call_later(_CHECK_INTERVAL, self._check_deadlines, loop) if self._busy else None

    async def _take(self, patience: float) -> _KeptConnection:
        while self._idle:
            kept = self._idle.pop()
            if kept.is_usable and not (self._checked and await kept.has_ended()):
                return kept
            await self._discard(kept)
        return await self._connect(patience)

    async def _connect(self, patience: float) -> _KeptConnection:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def abort() -> None:
            nonlocal timer
            self._abort_all()
            timer = loop.call_later(_CHECK_INTERVAL, abort)  # it may try another address, and wait there

        timer = loop.call_later(patience, abort)
        try:
            return _KeptConnection(await self._pool.get_connection())
        finally:
            timer.cancel()

    def _abort_all(self) -> None:
        """Abort all connections, and fail the calls that wait for a turn."""
        self._turns.fail(lambda: ConnectionError(_SILENT))
        for kept in self._busy:
            kept.fail(ConnectionError(_SILENT))
        self._abort()

    async def _discard(self, kept: _KeptConnection) -> None:
        """Return the connection to the pool, which reconnects it; with Sentinel it looks up the master again."""
        await kept.connection.disconnect(nowait=True)
        await self._pool.release(kept.connection)


class _KeptConnection(asyncio.Protocol):
    """Protocol of a connection opened by redis-py: passes received bytes to hiredis at once.

    redis-py reads through a StreamReader and several coroutines per reply. Its own protocol is still notified of
    the end of the connection, for callers that wait until it is closed.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.deadline = 0.0
        """Time to stop waiting, by the loop's clock."""
        self.lost = False
        """True once the connection has ended, or has received an unexpected reply."""
        error_class = connection._parser.parse_error
        self._reader = Reader(protocolError=InvalidResponse, replyError=error_class, notEnoughData=_INCOMPLETE)
        self._transport = connection._writer.transport
        self._redis_py_protocol = self._transport.get_protocol()
        self._transport.set_protocol(self)
        self._expected = 0
        self._received: list[Any] = []
        self._waiter: asyncio.Future[list[Any]] | None = None

    @property
    def is_usable(self) -> bool:
        """True until the connection ends, also if it was aborted and the event loop has not reported its end."""
        return not (self.lost or self._transport.is_closing())

    async def has_ended(self) -> bool:
        """Return True if the connection has ended, also if its event loop has not run since."""
        return await has_ended(self._transport, lambda: self.lost)

    async def exchange(self, packed: list[bytes]) -> list[Any]:
        """Send commands, and wait for all replies."""
        self._received, self._expected = [], len(packed)
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        # Not drained: the reply comes after the last byte was sent anyway.
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))
        received: list[Any] = await waiter
        return received

    def data_received(self, data: bytes) -> None:
        gets, received = self._reader.gets, self._received
        try:
            self._reader.feed(data)
            while (reply := gets(False)) is not _INCOMPLETE:
                if type(reply) is not PushNotification:
                    received.append(reply)
        except RedisError as error:
            self.fail(error)
            return
        if len(received) == self._expected:
            waiter, self._waiter = self._waiter, None
            if waiter is not None and not waiter.done():
                _resolve(waiter, received)
        elif len(received) > self._expected:
            self.fail(InvalidResponse("the server sent an unexpected reply"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or ConnectionError(_CLOSED))
        self._redis_py_protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._redis_py_protocol.pause_writing()

    def resume_writing(self) -> None:
        self._redis_py_protocol.resume_writing()

    def fail(self, error: Exception) -> None:
        """Mark the connection as unusable, and fail the call that waits for it."""
        self.lost = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)


def _resolve(waiter: asyncio.Future[list[Any]], replies: list[Any]) -> None:
    for reply in replies:
        if isinstance(reply, _UNUSABLE):
            waiter.set_exception(reply)
            return
    waiter.set_result(replies)
