"""Recovery: returning the tasks of dead workers to the queue. Every worker does it for all others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints, readable, strangers
from redis_worker.broker.keys import ARRIVED, LARGE, TASKS, Keys
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.registration import reclaim
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()


class Recoverer:
    """The role that finds workers with an expired lease, and late tasks of retired ones.

    It needs no lock: one script checks and moves, so that two workers that see the same dead one return its
    tasks once.
    """

    def __init__(
        self, connection: Connection, keys: Keys, queue: AtLeastOnceQueue, observer: Observer, *, lease: float
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._queue = queue
        self._observer = observer
        self._lease = lease
        self._complaints = Complaints(keys.waiting)

    async def run(self) -> None:
        """Sweep periodically until cancelled."""
        await asyncio.sleep(self._lease * random.uniform(0.0, 0.05))  # so that topics started together spread out
        while True:
            try:
                await self.sweep()
                # Random, so that a fleet does not sweep in step.
                await asyncio.sleep(self._lease * random.uniform(0.15, 0.3))
            except Disconnected:
                # After an outage the other workers need a moment too: do not declare live ones dead.
                await asyncio.sleep(self._lease)
            except DamagedKey as error:
                self._observer.damaged(error)
                await asyncio.sleep(self._lease)
            except Refused as refused:
                self._complaints.tell([refused])
                await asyncio.sleep(self._lease)

    async def sweep(self) -> None:
        """Return the tasks of dead workers, as far as no key is damaged. Raises Disconnected or Refused."""
        loop = asyncio.get_running_loop()
        keys = self._keys
        started = loop.time()
        # All derived keys: some are not used until a task fails or an operator reads them.
        types = {key: keys.types[key] for key in (keys.workers, keys.retired, keys.claimants)} | keys.types
        arguments = [int(self._lease * 1000), keys.listed(""), TASKS, ARRIVED, LARGE]
        dead, retired, expired, entered, found = await self._connection.run("overdue", types, arguments)
        if entered:
            logger.warning(
                "%d workers were missing from the key %r: they are registered again, and their tasks are returned "
                "if they are dead",
                *(len(entered), keys.workers),
                extra={"queue": keys.waiting},
            )
        if loop.time() - started > self._lease / 3:
            return  # the server or this process stood still, so that live workers could not renew: check again
        dead, strange_workers = readable(dead)
        retired, strange_retired = readable(retired)
        problems: list[object] = [*strangers(keys.workers, strange_workers), *strangers(keys.retired, strange_retired)]
        refused = await self._reclaim([name for name in dead if name != self._queue.worker], buries=True)
        refused |= await self._reclaim(retired, buries=False)
        self._complaints.tell([*problems, *(error for error in refused.values() if not isinstance(error, DamagedKey))])
        damages = [
            DamagedKey(key, kind.decode(), expected)
            for (key, expected), kind in zip(types.items(), found, strict=True)
            if kind.decode() not in (expected, "none")
        ]
        for damage in [*damages, *(error for error in refused.values() if isinstance(error, DamagedKey))]:
            self._observer.damaged(damage)
        if done := [name for name in readable(expired)[0] if name not in refused]:
            for key in (keys.claimants, keys.retired):
                await self._connection.call("ZREM", key, *done)

    async def _reclaim(self, workers: Iterable[str], *, buries: bool) -> dict[str, Refused]:
        """Return the tasks of `workers`. Returns the refusals: one does not stop the recovery of the other workers."""
        refused: dict[str, Refused] = {}
        for worker in workers:
            try:
                count = await reclaim(self._connection, self._keys, worker)
            except Refused as refusal:
                refused[worker] = refusal
                continue
            if count > 0 or (count == 0 and buries):
                self._observer.recovered(worker, count)
        return refused
