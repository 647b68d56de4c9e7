"""The registry of known queues: every queue that a pool has worked on, so that no search is needed."""

from __future__ import annotations

import asyncio

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints, call_on
from redis_worker.broker.keys import QUEUES, Keys
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused

# Interval of registration, in seconds: the server may have lost its data.
_AGAIN = 60.0
# Pause after a failed connection, in seconds.
_PAUSE = 1.0


class Registrar:
    """The role that keeps a queue in the registry. Its failures do not affect the work."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._complaints = Complaints(keys.waiting)

    async def run(self) -> None:
        """Register the queue periodically until cancelled."""
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
                pass  # the user may lack permission for this key, which no work needs
            await asyncio.sleep(pause)
