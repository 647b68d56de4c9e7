"""The doorbell: one connection that is notified when any of many keys changes, through any client.

`BLMOVE` waits on one list. The server's support for client-side caches (CLIENT TRACKING, Redis 6) waits on any
number of keys, takes nothing from them and needs no setting: the server remembers each key that a connection
reads, and notifies it once on a change. The reply to that read shows a change that came before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from typing import Any

from hiredis import pack_command
from redis.exceptions import RedisError

from redis_worker.broker.connection.address import Address
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


class Doorbell:
    """A notifier that rings when a key changes, or may have changed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._changed: dict[str, asyncio.Event] = {}
        self._tracked: set[str] = set()
        """Keys that the server tracks."""
        self._to_track: set[str] = set()
        self._unanswered: deque[tuple[float, list[str]]] = deque()
        """Requests without a reply yet: time and keys; no keys stand for a ping."""
        self._requested = asyncio.Event()
        self._connected = False

    async def wait(self, key: str, seconds: float) -> None:
        """Return when `key` exists and may have changed since the last call; at the latest after `seconds`."""
        changed = self._changed.get(key)
        if changed is None:
            changed = self._changed[key] = asyncio.Event()
        if not self._connected:
            seconds = min(seconds, _POLL)
        elif key not in self._tracked:
            self._to_track.add(key)
            self._requested.set()
        await happens(changed, seconds)
        changed.clear()

    def ring(self) -> None:
        """Wake all waiters."""
        for changed in self._changed.values():
            changed.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            client = self._address.open()
            try:
                if is_plain(client):
                    await self._listen(client)
                else:  # a cluster node notifies of its own keys only, fakeredis of none: poll instead
                    await asyncio.Event().wait()
            except Exception as error:
                if is_defect(error):
                    raise
                # Waiters poll meanwhile.
            finally:
                self._connected = False
                self._tracked.clear()
                self.ring()
                with contextlib.suppress(RedisError, OSError):
                    await client.aclose()
            await asyncio.sleep(_PAUSE)

    async def _listen(self, client: Any) -> None:
        pool = client.connection_pool
        pool.connection_kwargs["protocol"] = 3  # RESP3 has push messages
        async with asyncio.timeout(_OPEN_PATIENCE):
            connection = await pool.get_connection()
            await connection.send_command("CLIENT", "TRACKING", "ON")
            await connection.read_response()
        connection._parser.set_invalidation_push_handler(self._invalidate)
        self._unanswered.clear()
        self._connected = True
        self.ring()
        tracking = asyncio.create_task(self._track(connection), name="redis-worker doorbell")
        try:
            while True:
                reply = await connection.read_response(push_request=True, timeout=math.inf, disable_decoding=True)
                if reply is not None:  # not the return value of the handler above
                    self._on_tracked(self._unanswered.popleft()[1], reply)
        finally:
            tracking.cancel()
            await asyncio.wait({tracking})
            await connection.disconnect(nowait=True)

    async def _track(self, connection: Any) -> None:
        """Read the keys with waiters, so that the server tracks them; ping if there are none."""
        transport = connection._writer.transport
        while True:
            await happens(self._requested, PING_EVERY)
            self._requested.clear()
            if self._is_overdue():
                await asyncio.sleep(LAST_WAIT)  # if this event loop stood still, the reply may have arrived unread
                if self._is_overdue():
                    logger.warning("the connection that watches topics does not answer: replacing it")
                    transport.abort()
                    return
            keys, self._to_track = list(self._to_track), set()
            self._unanswered.append((time.monotonic(), keys))
            # Past redis-py, and not drained: the reply comes after the last byte was sent anyway.
            command: tuple[Any, ...] = ("EXISTS", *keys) if keys else ("PING",)
            transport.write(pack_command(command))

    def _is_overdue(self) -> bool:
        return bool(self._unanswered) and time.monotonic() - self._unanswered[0][0] > PING_PATIENCE

    def _on_tracked(self, keys: list[str], existing: Any) -> None:
        """Mark `keys` as tracked. If any of them exists, wake all their waiters: it may have changed before."""
        self._tracked.update(keys)
        if existing:
            for key in keys:
                self._changed[key].set()

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
            if changed := self._changed.get(key):
                changed.set()
