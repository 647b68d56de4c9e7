"""The doorbell: one connection that is notified when any of many keys changes, through any client.

`BLMOVE` waits on one list. The server's support for client-side caches (CLIENT TRACKING, Redis 6) waits on any
number of keys, takes nothing from them and needs no setting: the server remembers each key that a connection
reads, and notifies it once on a change. The reply to that read shows a change that came before it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from hiredis import pack_command
from redis.exceptions import ResponseError

from redis_worker.broker.connection.address import Address
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.error_translation import is_defect
from redis_worker.broker.connection.packing import is_plain
from redis_worker.broker.connection.subscription import LAST_WAIT, PING_EVERY, PING_PATIENCE
from redis_worker.engine.waiting import happens
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()

# Interval of polling, in seconds, where the server does not notify: in a cluster, before Redis 6, and in fakeredis.
_POLL = 0.1
# Pause before the next connection attempt, and its longest time, in seconds.
_PAUSE, _OPEN_PATIENCE = 1.0, 5.0


class _Request(NamedTuple):
    """Keys whose tracking is requested; without keys, a ping."""

    keys: list[str]
    asking: Sequence[asyncio.Future[None]] | None
    """Those that wait for the reply; None if the bells of the keys ring where one exists."""
    at: float


class Bell:
    """A wait for changes of some keys, as a `with` block or until it is closed."""

    def __init__(self, doorbell: Doorbell, keys: Sequence[str]) -> None:
        self.keys: Sequence[str] = ()
        self._doorbell = doorbell
        self._rung = asyncio.Event()
        self._doorbell.all.add(self)
        self.watch(keys)

    def watch(self, keys: Sequence[str]) -> None:
        """Wait for changes of `keys`, in place of others."""
        for key in self.keys:
            bells = self._doorbell.bells[key]
            bells.remove(self)
            if not bells:
                del self._doorbell.bells[key]
        self.keys = keys
        for key in keys:
            self._doorbell.bells.setdefault(key, []).append(self)

    async def track(self) -> None:
        """Return once the server notifies of changes, or cannot do so; the caller then reads the keys."""
        self._rung.clear()
        await self._doorbell.tracked(self.keys)

    async def wait(self, seconds: float, poll: float = _POLL) -> bool:
        """Return True when a key exists and may have changed since the last call, False after `seconds`.

        While the server does not notify of changes, return after `poll` seconds.
        """
        if not self._rung.is_set() and not self._doorbell.request(self.keys):
            seconds = min(seconds, poll)
        rung = await happens(self._rung, seconds)
        self._rung.clear()
        return rung

    def ring(self) -> None:
        """End the wait, or the next one."""
        self._rung.set()

    def close(self) -> None:
        """Wait for no key any more."""
        self.watch(())
        self._doorbell.all.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Doorbell:
    """A notifier that rings bells when a key changes, or may have changed."""

    def __init__(self, address: Address) -> None:
        self.bells: dict[str, list[Bell]] = {}
        """The bells by key."""
        self.all: set[Bell] = set()
        self._address = address
        self._tracked: set[str] = set()
        """Keys that the server tracks."""
        self._refused: set[str] = set()
        """Keys that the user may not read."""
        self._to_track: set[str] = set()
        self._alone: list[str] = []
        """Keys to request one by one."""
        self._to_read: list[tuple[Sequence[str], asyncio.Future[None]]] = []
        self._unanswered: deque[_Request] = deque()
        self._requested = asyncio.Event()
        self.notifies = False
        """True while the server notifies of changes."""

    def bell(self, *keys: str) -> Bell:
        """Return a bell that rings when one of `keys` changes."""
        return Bell(self, keys)

    def request(self, keys: Sequence[str]) -> bool:
        """Have the server track `keys`, and ring where one exists. Return False if it does not notify of changes."""
        if not self.notifies:
            return False
        if not self._tracked.issuperset(keys):
            self._to_track.update(key for key in keys if key not in self._tracked)
            self._requested.set()
        return self._refused.isdisjoint(keys)

    async def tracked(self, keys: Sequence[str]) -> None:
        """Have the server track `keys`; return once it does, or cannot."""
        if self.notifies and not self._tracked.issuperset(keys):
            answered = asyncio.get_running_loop().create_future()
            self._to_read.append(([key for key in keys if key not in self._tracked], answered))
            self._requested.set()
            await answered

    def ring(self) -> None:
        """Ring all bells."""
        for bell in self.all:
            bell.ring()

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            connection = Connection(self._address.open(), owned=True)
            try:
                if is_plain(connection.client):
                    await self._listen(connection.client)
                else:  # a cluster node notifies of its own keys only, fakeredis of none: poll instead
                    await asyncio.Event().wait()
            except Exception as error:
                if is_defect(error):
                    raise
                # Waiters poll meanwhile.
            finally:
                self._disconnected()
                await connection.close()
            await asyncio.sleep(_PAUSE)

    def _disconnected(self) -> None:
        self.notifies = False
        self._tracked.clear()
        self._refused.clear()
        for request in self._unanswered:
            _answer(request.asking or ())
        _answer([answered for _, answered in self._to_read])
        self._unanswered.clear()
        self._to_read.clear()
        self._alone.clear()
        self.ring()

    async def _listen(self, client: Any) -> None:
        pool = client.connection_pool
        pool.connection_kwargs["protocol"] = 3  # RESP3 has push messages
        async with asyncio.timeout(_OPEN_PATIENCE):
            connection = await pool.get_connection()
            await connection.send_command("CLIENT", "TRACKING", "ON")
            await connection.read_response()
        connection._parser.set_invalidation_push_handler(self._invalidate)
        self.notifies = True
        self.ring()
        tracking = asyncio.create_task(self._track(connection), name="redis-worker doorbell")
        try:
            while True:
                try:
                    reply = await connection.read_response(push_request=True, timeout=math.inf, disable_decoding=True)
                except ResponseError:
                    self._on_refused(self._unanswered.popleft())
                    continue
                if reply is not None:  # not the return value of the handler above
                    self._on_tracked(self._unanswered.popleft(), reply)
        finally:
            tracking.cancel()
            await asyncio.wait({tracking})
            await connection.disconnect(nowait=True)

    async def _track(self, connection: Any) -> None:
        """Read the keys to track, since the server tracks what a connection reads; ping if there are none."""
        transport = connection._writer.transport
        while True:
            await happens(self._requested, PING_EVERY)
            self._requested.clear()
            if self._is_overdue():
                await asyncio.sleep(LAST_WAIT)  # if this event loop stood still, the reply may have arrived unread
                if self._is_overdue():
                    logger.warning("the connection that watches queues does not answer: replacing it")
                    transport.abort()
                    return
            # Past redis-py, and not drained: the reply comes after the last byte was sent anyway.
            for keys, asking in self._requests():
                self._unanswered.append(_Request(keys, asking, time.monotonic()))
                command: tuple[Any, ...] = ("EXISTS", *keys) if keys else ("PING",)
                transport.write(pack_command(command))

    def _requests(self) -> list[tuple[list[str], Sequence[asyncio.Future[None]] | None]]:
        """Return the keys to track now, and those that wait for it; no keys if there are none."""
        requests: list[tuple[list[str], Sequence[asyncio.Future[None]] | None]] = []
        if self._to_track:
            requests.append((list(self._to_track), None))
            self._to_track.clear()
        if self._to_read:
            keys = dict.fromkeys(key for keys, _ in self._to_read for key in keys)
            requests.append((list(keys), [answered for _, answered in self._to_read]))
            self._to_read.clear()
        requests += [([key], None) for key in self._alone]
        self._alone.clear()
        return requests or [([], None)]

    def _is_overdue(self) -> bool:
        return bool(self._unanswered) and time.monotonic() - self._unanswered[0].at > PING_PATIENCE

    def _on_tracked(self, request: _Request, existing: Any) -> None:
        """Mark keys as tracked. If one exists, it may have changed before: ring for all, unless callers read them."""
        self._tracked.update(request.keys)
        if request.asking is not None:
            _answer(request.asking)
        elif existing:
            for key in request.keys:
                self._ring_for(key)

    def _on_refused(self, request: _Request) -> None:
        """Request each key alone: the user may read the others."""
        if len(request.keys) > 1:
            self._alone += request.keys
            self._requested.set()
        else:  # no longer requested, but polled
            self._tracked.update(request.keys)
            self._refused.update(request.keys)
            for key in request.keys:
                self._ring_for(key)
        _answer(request.asking or ())

    def _ring_for(self, key: str) -> None:
        for bell in self.bells.get(key, ()):
            bell.ring()

    async def _invalidate(self, message: list[Any]) -> None:
        """Handle a notification of changed keys; None instead of a list means all, after a flush."""
        keys: list[bytes] | None = message[1]
        if keys is None:
            self._tracked.clear()
            self.ring()
            return
        for raw in keys:
            key = raw.decode(errors="surrogateescape")
            self._tracked.discard(key)
            self._ring_for(key)


def _answer(asking: Sequence[asyncio.Future[None]]) -> None:
    for answered in asking:
        if not answered.done():
            answered.set_result(None)
