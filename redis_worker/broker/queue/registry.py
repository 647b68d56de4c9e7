"""The registry of known queues: those that a pool has ever worked on, so that they can be found without a search."""

from __future__ import annotations

import asyncio

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints, call_on
from redis_worker.broker.keys import QUEUES, Keys
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused

# How often a queue is made known again, in seconds: the server may have lost its data.
_AGAIN = 60.0
# When to try again if the server cannot be reached, in seconds.
_PAUSE = 1.0


class Registrar:
    """Makes a queue known, and keeps it so. Nothing that fails here is of any concern to the work."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._complaints = Complaints(keys.waiting)

    async def run(self) -> None:
        """Make the queue known now and then, until cancelled."""
        while True:
            pause = _AGAIN
            try:
                await call_on(self._connection, QUEUES, "set", "SADD", self._keys.waiting)
                self._complaints.tell([])
            except Disconnected:
                pause = _PAUSE
            except DamagedKey as damaged:
                self._complaints.tell([damaged])
            except Refused:
                pass  # a user may lack a right to this key, which no work needs
            await asyncio.sleep(pause)
