"""Presence: each worker publishes a description of itself and of its running tasks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.announcing import clean, keep_announced, process_members
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.engine.vitals import Vitals
from redis_worker.engine.worker import Worker
from redis_worker.vocabulary.errors import DamagedKey, Unreadable
from redis_worker.vocabulary.payload import read_object
from redis_worker.vocabulary.task import Delivery

# Limits on tasks listed and bytes parsed for their ids: parsing blocks the event loop.
_MOST_TASKS = 20
_MOST_BYTES = 64 * 1024
# Longer ids are truncated: every reader fetches whole descriptions.
_MOST_CHARACTERS = 200


class Role(NamedTuple):
    """A worker's processor or handler, and its concurrency."""

    name: str
    """Name of the processor or handler."""
    concurrency: int


class Presence:
    """Publisher of a worker's description, about once a second, in a hash beside the leases.

    The description disappears with the lease. Errors here do not affect the worker.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        queue: AtLeastOnceQueue,
        role: Role,
        vitals: Vitals,
        worker: Worker,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._queue = queue
        self._vitals = vitals
        self._worker = worker
        self._constant = process_members() | {
            "queue": clean(keys.waiting),
            "processor": clean(role.name),
            "concurrency": role.concurrency,
        }
        self._before = (vitals.counters.processed, time.monotonic())

    async def run(self) -> None:
        """Publish until cancelled."""
        await keep_announced(self._publish, self._damaged)

    def _damaged(self, keys: Iterable[DamagedKey]) -> None:
        for key in keys:
            self._queue.damaged(key)

    async def _publish(self) -> None:
        keys = [self._keys.workers, self._keys.presence]
        await self._connection.run("present", keys, [self._queue.worker, orjson.dumps(self._description())])

    def _description(self) -> dict[str, Any]:
        counters, worker = self._vitals.counters, self._worker
        return self._constant | {
            "running": worker.running,
            "tasks": _named(worker.longest(_MOST_TASKS)),
            "rate": self._rate(),
            "counters": {"processed": counters.processed, **counters.snapshot()},
            "vitals": self._clean_vitals(),
        }

    def _clean_vitals(self) -> dict[str, Any]:
        vitals = self._vitals.sampled()
        return vitals | {"failures": [[clean(reason), *numbers] for reason, *numbers in vitals["failures"]]}

    def _rate(self) -> float:
        """Return the tasks settled per second since the last call."""
        processed, now = self._vitals.counters.processed, time.monotonic()
        (earlier, then), self._before = self._before, (processed, now)
        return round((processed - earlier) / max(now - then, 0.001), 1)


def _named(running: Sequence[tuple[Delivery, float]]) -> list[dict[str, Any]]:
    """Return ids and ages of running tasks; the id is None if missing or in a task too large to parse here."""
    named: list[dict[str, Any]] = []
    budget = _MOST_BYTES
    for delivery, seconds in running:
        id = None
        if len(delivery.raw) <= budget:
            budget -= len(delivery.raw)
            id = _id(delivery.raw)
        named.append({"id": id, "seconds": round(seconds, 3)})
    return named


def _id(raw: bytes) -> str | None:
    try:
        return clean(read_object(raw)[0][:_MOST_CHARACTERS])
    except Unreadable:
        return None
