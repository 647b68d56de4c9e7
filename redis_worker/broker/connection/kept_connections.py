"""Connections kept between calls, with a short path from caller to socket for the latency of a lone task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hiredis import PushNotification, pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError, RedisError

from redis_worker.broker.connection.freshness import is_readable
from redis_worker.broker.connection.raw_connection import INCOMPLETE, RawConnection
from redis_worker.broker.connection.turns import Turns

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
            replies = await kept.exchange(map(pack_command, map(tuple, commands)), len(commands))
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
            if kept.is_usable and not (self._checked and is_readable(kept.transport) and await kept.has_ended()):
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


class _KeptConnection(RawConnection):
    """A connection that exchanges commands and replies."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.deadline = 0.0
        """Time to stop waiting, by the loop's clock."""
        self._expected = 0
        self._received: list[Any] = []
        self._waiter: asyncio.Future[list[Any]] | None = None

    async def exchange(self, packed: Iterable[bytes], count: int) -> list[Any]:
        """Send `count` commands, and wait for all replies."""
        self._received, self._expected = [], count
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        # Not drained: the reply comes after the last byte was sent anyway.
        self.transport.write(b"".join(packed))
        received: list[Any] = await waiter
        return received

    def data_received(self, data: bytes) -> None:
        gets, received = self.reader.gets, self._received
        try:
            self.reader.feed(data)
            while (reply := gets(False)) is not INCOMPLETE:
                if type(reply) is not PushNotification:
                    received.append(reply)
        except RedisError as error:
            self.fail(error)
            return
        if len(received) == self._expected:
            waiter, self._waiter = self._waiter, None
            self._received, self._expected = [], 0  # replies may be large, and the next call far away
            if waiter is not None and not waiter.done():
                _resolve(waiter, received)
        elif len(received) > self._expected:
            self.fail(InvalidResponse("the server sent an unexpected reply"))

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
