"""The role that learns from Redis which tasks are to be cancelled."""

from __future__ import annotations

from contextlib import suppress

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.functions.marks import Marks
from redis_worker.vocabulary.errors import Disconnected, Refused

# Seconds between looks without a notification, and where the server does not notify.
_EVERY, _POLL = 60.0, 0.5


class Cancelling:
    """A reader of marks: the server notifies it of changes, so that it reads nothing while nobody cancels."""

    def __init__(
        self, connection: Connection, keys: Keys, queue: AtLeastOnceQueue, doorbell: Doorbell, marks: Marks
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._queue = queue
        self._doorbell = doorbell
        self._marks = marks
        marks.on_unique = queue.end_records

    async def run(self) -> None:
        """Read marks until cancelled."""
        with self._doorbell.bell(self._keys.cancelled) as bell:
            while True:
                await bell.wait(_EVERY, poll=_POLL)
                with suppress(Disconnected, Refused):  # the worker reports it, and the bell rings afterwards
                    await self.read()

    async def read(self) -> None:
        """Read the marks. Raises Disconnected and Refused."""
        found = await self._connection.call("ZRANGE", self._keys.cancelled, 0, -1)
        if found:
            self._queue.end_records()
        self._marks.update([mark.decode(errors="replace") for mark in found])
