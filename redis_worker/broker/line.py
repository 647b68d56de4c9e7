"""Connections kept from call to call, with little between the caller and the socket for a lone task to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError, RedisError

_NOTHING = object()
_CLOSED = "Connection closed by server."
# A server that loads, or is no master any more, says so in place of a reply: this is not the place to ask.
_GONE = (ConnectionError, ReadOnlyError)
# How often it is looked whether a server has been silent for too long, in seconds.
_LOOK_EVERY = 1.0


class Line:
    """The connections of a client, kept: taking one from redis-py's pool asks the socket each time.

    For callers that try again: a connection that breaks fails the call it breaks in.
    """

    def __init__(self, client: Redis, tear: Callable[[], None]) -> None:
        """`tear` breaks all connections of the client, those that are being made included."""
        self._pool: Any = client.connection_pool
        self._tear = tear
        self._idle: list[_Replies] = []
        self._busy: set[_Replies] = set()
        self._watch: asyncio.TimerHandle | None = None

    async def exchange(self, commands: Sequence[Sequence[Any]], patience: float) -> list[Any]:
        """The replies to several commands sent at once, an error reply as the exception it stands for.

        A connection on which they have not all come after `patience` seconds, or little more, is broken.
        A caller who is cancelled loses the replies, and the connection with them. Raises what redis-py raises.
        """
        replies = await self._take(patience)
        loop = asyncio.get_running_loop()
        replies.deadline = loop.time() + patience
        if self._watch is None:
            self._watch = loop.call_later(_LOOK_EVERY, self._look, loop)
        self._busy.add(replies)
        answer = None
        try:
            answer = await replies.exchange([pack_command(tuple(command)) for command in commands])
        finally:
            self._busy.discard(replies)
            if answer is not None:
                self._idle.append(replies)
            else:
                # What comes on it from now on would be taken for replies to other commands.
                await self._give_up(replies)
        return answer

    def close(self) -> None:
        """Watch no more. The connections are the client's to close."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Break what has been silent for too long: one timer for all calls, for one for each would cost more."""
        now = loop.time()
        for replies in self._busy:
            if now > replies.deadline:
                replies.abort()
        self._watch = loop.call_later(_LOOK_EVERY, self._look, loop) if self._busy else None

    async def _take(self, patience: float) -> _Replies:
        while self._idle:
            replies = self._idle.pop()
            if not replies.lost:
                return replies
            await self._give_up(replies)
        return await self._connect(patience)

    async def _connect(self, patience: float) -> _Replies:
        loop = asyncio.get_running_loop()
        watch: asyncio.TimerHandle

        def tear() -> None:
            nonlocal watch
            self._tear()
            watch = loop.call_later(_LOOK_EVERY, tear)  # it may go on to another address, and wait there

        watch = loop.call_later(patience, tear)
        try:
            return _Replies(await self._pool.get_connection())
        finally:
            watch.cancel()

    async def _give_up(self, replies: _Replies) -> None:
        """Back to the pool, which connects it anew, and with Sentinel asks where the master is by then."""
        await replies.connection.disconnect(nowait=True)
        await self._pool.release(replies.connection)


class _Replies(asyncio.Protocol):
    """Reads a connection that redis-py has made: bytes go to hiredis as they come in.

    redis-py reads through a StreamReader and several coroutines for each reply. Its own protocol still
    hears of the end, for the sake of whoever waits for the connection to close.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.deadline = 0.0
        """When to give up waiting, by the loop's clock."""
        self.lost = False
        """True once the connection has ended, or has said what nobody asked for."""
        error_class = connection._parser.parse_error
        self._reader = Reader(protocolError=InvalidResponse, replyError=error_class, notEnoughData=_NOTHING)
        self._transport = connection._writer.transport
        self._former = self._transport.get_protocol()
        self._transport.set_protocol(self)
        self._expected = 0
        self._received: list[Any] = []
        self._waiter: asyncio.Future[list[Any]] | None = None

    async def exchange(self, packed: list[bytes]) -> list[Any]:
        """Send commands, and wait for all replies."""
        self._received, self._expected = [], len(packed)
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        # Not drained: the reply comes after the last byte has left anyway.
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))
        received: list[Any] = await waiter
        return received

    def abort(self) -> None:
        """End the connection, and whatever waits for it, at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        gets, received = self._reader.gets, self._received
        try:
            self._reader.feed(data)
            while (reply := gets(False)) is not _NOTHING:
                if type(reply) is not PushNotification:
                    received.append(reply)
        except RedisError as error:
            self._end(error)
            return
        if len(received) == self._expected:
            waiter, self._waiter = self._waiter, None
            if waiter is not None and not waiter.done():
                _answer(waiter, received)
        elif len(received) > self._expected:
            self._end(InvalidResponse("the server has sent a reply that nobody asked for"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError(_CLOSED))
        self._former.connection_lost(exc)

    def pause_writing(self) -> None:
        self._former.pause_writing()

    def resume_writing(self) -> None:
        self._former.resume_writing()

    def _end(self, error: Exception) -> None:
        self.lost = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)


def _answer(waiter: asyncio.Future[list[Any]], replies: list[Any]) -> None:
    for reply in replies:
        if isinstance(reply, _GONE):
            waiter.set_exception(reply)
            return
    waiter.set_result(replies)
