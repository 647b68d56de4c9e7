"""Recovery: returning the tasks of dead workers to the queue. Every worker does it for all others."""

from __future__ import annotations

import asyncio
import random

from redis_worker.broker.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue import AtLeastOnceQueue, reclaim
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused


class Recoverer:
    """Looks for workers whose lease has ended, and for what came late to those that are retired.

    There is no lock: one script decides and moves, so that two workers who see the same dead one
    return its tasks once.
    """

    def __init__(
        self, connection: Connection, keys: Keys, queue: AtLeastOnceQueue, observer: Observer, *, lease: float
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._queue = queue
        self._observer = observer
        self._lease = lease

    async def run(self) -> None:
        """Sweep now and then, until cancelled."""
        while True:
            try:
                await self.sweep()
                # Spread, so that a fleet does not sweep in step.
                await asyncio.sleep(self._lease * random.uniform(0.15, 0.3))
            except Disconnected:
                # After an outage the others need a moment too: do not bury the living.
                await asyncio.sleep(self._lease)
            except DamagedKey as error:
                self._observer.damaged(error)
                await asyncio.sleep(self._lease)
            except Refused:
                await asyncio.sleep(self._lease)  # the pool meets the same refusal, and ends

    async def sweep(self) -> None:
        """Return what dead workers held. Raises Disconnected or Refused."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        keys = [self._keys.workers, self._keys.retired]
        dead, retired, expired, *found = await self._connection.run("overdue", keys, [])
        if found:
            self._observer.damaged(DamagedKey(self._keys.retired, found[0].decode(), "zset"))
        if loop.time() - asked > self._lease / 3:
            return  # while the server, or this process, stood still, the living could not renew: look again
        for name in (raw.decode() for raw in dead):
            if name != self._queue.worker:
                await self._reclaim(name)
        for name in (raw.decode() for raw in retired):
            if count := await reclaim(self._connection, self._keys, name):
                self._observer.recovered(name, count)
        if expired:
            await self._connection.call("ZREM", self._keys.retired, *expired)

    async def _reclaim(self, worker: str) -> None:
        try:
            count = await reclaim(self._connection, self._keys, worker)
        except DamagedKey as error:
            self._observer.damaged(error)  # what it held stays there until that is mended
            return
        if count >= 0:
            self._observer.recovered(worker, count)
