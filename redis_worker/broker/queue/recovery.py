"""Recovery: returning the tasks of dead workers to the queue. Every worker does it for all others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints, readable, strangers
from redis_worker.broker.keys import ARRIVED, BUNDLES, TASKS, Keys
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.registration import reclaim
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()

# Seconds until the next sweep if no lease ends.
_UNTIL_CHANGED = 3600.0


class Recoverer:
    """The role that finds workers with an expired lease, and late tasks of retired ones.

    It needs no lock: one script checks and moves, so that two workers that see the same dead one return its
    tasks once.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        queue: AtLeastOnceQueue,
        observer: Observer,
        doorbell: Doorbell,
        *,
        lease: float,
    ) -> None:
        """`doorbell` wakes it when a lease changes, or any other key that a sweep looks at."""
        self._connection = connection
        self._keys = keys
        self._queue = queue
        self._observer = observer
        self._doorbell = doorbell
        self._lease = lease
        self._complaints = Complaints(keys.waiting)
        # All derived keys: some are not used until a task fails or an operator reads them.
        self._types = {key: keys.types[key] for key in (keys.workers, keys.retired, keys.claimants)} | keys.types
        self._watched = [key for key in self._types if key != keys.delayed]  # the promoter watches that
        self._retired: list[str] = []

    async def run(self) -> None:
        """Sweep until cancelled: when a lease ends, and after each change of the keys."""
        await asyncio.sleep(self._lease * random.uniform(0.0, 0.05))  # so that topics started together spread out
        with self._doorbell.bell(*self._watched) as bell:
            while True:
                await bell.track()
                try:
                    seconds = await self.sweep()
                except Disconnected:
                    # After an outage the other workers need a moment too: do not declare live ones dead.
                    await asyncio.sleep(self._lease)
                    continue
                except DamagedKey as error:
                    self._observer.damaged(error)
                    seconds = self._lease
                except Refused as refused:
                    self._complaints.log([refused])
                    seconds = self._lease
                # A pop that was sent before its worker retired may bring a task later.
                bell.watch([*self._watched, *map(self._keys.arrived, self._retired)])
                # Random, so that a fleet does not sweep in step.
                pause = self._lease * random.uniform(0.15, 0.3)
                if await bell.wait(seconds or pause, poll=pause):
                    await asyncio.sleep(pause)

    async def sweep(self) -> float:
        """Return the tasks of dead workers, as far as no key is damaged. Raises Disconnected or Refused.

        Returns the seconds until the next one is needed if nothing changes before; 0 if it is soon.
        """
        loop = asyncio.get_running_loop()
        keys = self._keys
        started = loop.time()
        arguments = [int(self._lease * 1000), keys.listed(""), TASKS, ARRIVED, BUNDLES]
        dead, retired, expired, entered, found, soonest = await self._connection.run("overdue", self._types, arguments)
        if entered:
            logger.warning(
                "%d workers were missing from the key %r: they are registered again, and their tasks are returned "
                "if they are dead",
                *(len(entered), keys.workers),
                extra={"queue": keys.waiting},
            )
        if entered or self._queue.worker.encode() in dead:
            self._queue.ring()  # its lease may have rested, and is renewed as soon as it claims
        if loop.time() - started > self._lease / 3:
            return 0.0  # the server or this process stood still, so that live workers could not renew: check again
        dead, strange_workers = readable(dead)
        retired, strange_retired = readable(retired)
        problems: list[object] = [*strangers(keys.workers, strange_workers), *strangers(keys.retired, strange_retired)]
        refused = await self._reclaim([name for name in dead if name != self._queue.worker], buries=True)
        refused |= await self._reclaim(retired, buries=False)
        self._complaints.log([*problems, *(error for error in refused.values() if not isinstance(error, DamagedKey))])
        damages = [
            DamagedKey(key, kind.decode(), expected)
            for (key, expected), kind in zip(self._types.items(), found, strict=True)
            if kind.decode() not in (expected, "none")
        ]
        damages += [error for error in refused.values() if isinstance(error, DamagedKey)]
        for damage in damages:
            self._observer.damaged(damage)
        if done := [name for name in readable(expired)[0] if name not in refused]:
            for key in (keys.claimants, keys.retired):
                await self._connection.call("ZREM", key, *done)
        self._retired = retired
        if problems or refused or damages:
            return 0.0
        return _UNTIL_CHANGED if soonest < 0 else soonest / 1000 + self._lease * random.uniform(0.0, 0.1)

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
