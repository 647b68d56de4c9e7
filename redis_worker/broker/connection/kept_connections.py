"""Connections kept from call to call, with little between the caller and the socket for a lone task to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError, RedisError

from redis_worker.broker.connection.turns import Turns

_NOTHING = object()
_CLOSED = "Connection closed by server."
_SILENT = "the server does not answer"
# A server that loads, or is no master any more, says so in place of a reply: this is not the place to ask.
_GONE = (ConnectionError, ReadOnlyError)
# How often it is looked whether a server has been silent for too long, in seconds.
_LOOK_EVERY = 1.0


class Line:
    """The connections of a client, kept: taking one from redis-py's pool asks the socket each time.

    For callers that try again: a connection that breaks fails the call it breaks in.
    """

    def __init__(self, client: Redis, tear: Callable[[], None], at_once: int) -> None:
        """`tear` breaks all connections of the client, those that are being made included.

        `at_once` calls go on at the same time; more wait their turn, first come, first served.
        """
        self._pool: Any = client.connection_pool
        self._tear = tear
        self._turns = Turns(at_once)
        self._idle: list[_Replies] = []
        self._busy: set[_Replies] = set()
        self._watch: asyncio.TimerHandle | None = None

    async def exchange(self, commands: Sequence[Sequence[Any]], patience: float) -> list[Any]:
        """The replies to several commands sent at once, an error reply as the exception it stands for.

        Where they have not all come `patience` seconds, or little more, after the call had its turn, all
        connections are broken: the other calls are not to wait for the same server as long again, each for itself.
        A caller who is cancelled loses the replies, and the connection with them. Raises what redis-py raises.
        """
        if self._turns.free:
            self._turns.free -= 1
        else:
            await self._turns.wait()
        try:
            replies = await self._take(patience)
        except BaseException:
            self._turns.give_back()
            raise
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
            self._turns.give_back()
            if answer is not None:
                self._idle.append(replies)
            else:
                # What comes on it from now on would be taken for replies to other commands.
                await self._give_up(replies)
        return answer

    def hurry(self, seconds: float) -> None:
        """Give the calls under way so many seconds more at the most."""
        end = asyncio.get_running_loop().time() + seconds
        for replies in self._busy:
            replies.deadline = min(replies.deadline, end)

    def close(self) -> None:
        """Watch no more. The connections are the client's to close."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for a call without a reply in time: one timer for all calls, for one for each would cost more."""
        now = loop.time()
        if any(now > replies.deadline for replies in self._busy):
            self._give_up_all()
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
            self._give_up_all()
            watch = loop.call_later(_LOOK_EVERY, tear)  # it may go on to another address, and wait there

        watch = loop.call_later(patience, tear)
        try:
            return _Replies(await self._pool.get_connection())
        finally:
            watch.cancel()

    def _give_up_all(self) -> None:
        """Break all connections, and have those calls fail that wait for their turn."""
        self._turns.fail(lambda: ConnectionError(_SILENT))
        for replies in self._busy:
            replies.fail(ConnectionError(_SILENT))
        self._tear()

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

    def data_received(self, data: bytes) -> None:
        gets, received = self._reader.gets, self._received
        try:
            self._reader.feed(data)
            while (reply := gets(False)) is not _NOTHING:
                if type(reply) is not PushNotification:
                    received.append(reply)
        except RedisError as error:
            self.fail(error)
            return
        if len(received) == self._expected:
            waiter, self._waiter = self._waiter, None
            if waiter is not None and not waiter.done():
                _answer(waiter, received)
        elif len(received) > self._expected:
            self.fail(InvalidResponse("the server has sent a reply that nobody asked for"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or ConnectionError(_CLOSED))
        self._former.connection_lost(exc)

    def pause_writing(self) -> None:
        self._former.pause_writing()

    def resume_writing(self) -> None:
        self._former.resume_writing()

    def fail(self, error: Exception) -> None:
        """Use the connection no more, and have the call that waits for it fail."""
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
