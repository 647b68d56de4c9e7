"""Presence: each worker publishes a description of itself and of its running tasks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import PROCESSES, Keys
from redis_worker.broker.operator.announcing import REFUSED_PAUSE, clean, keep_announced, process_members, process_name
from redis_worker.broker.operator.run_each import run_each
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.engine.counters import COUNTED
from redis_worker.engine.vitals import Vitals
from redis_worker.engine.worker import Worker
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Refused, Unreadable
from redis_worker.vocabulary.payload import read_object
from redis_worker.vocabulary.task import Delivery

# Limits on tasks listed and bytes parsed for their ids: parsing blocks the event loop.
_MOST_TASKS = 20
_MOST_BYTES = 64 * 1024
# Longer ids are truncated: every reader fetches whole descriptions.
_MOST_CHARACTERS = 200
# Longest time, in seconds, until an unchanged description is published again, and the same for each worker of many.
_AGAIN, _AGAIN_EACH = 30.0, 2.0
# Silence of a process, in ms, after which it is forgotten.
_FORGOTTEN_MS = 3_600_000
# Longest wait for a reply at the end, in seconds.
_END_PATIENCE = 1.0

_COUNTS = attrgetter(*COUNTED)


class Role(NamedTuple):
    """A worker's processor or handler, and its concurrency."""

    name: str
    """Name of the processor or handler."""
    concurrency: int


class Presence:
    """A worker's description, in a hash beside the leases, which its announcer publishes when it has changed.

    The description disappears with the lease. Errors here do not affect the worker.
    """

    def __init__(
        self, keys: Keys, queue: AtLeastOnceQueue, role: Role, vitals: Vitals, worker: Worker, announcer: Announcer
    ) -> None:
        self._keys = keys
        self._queue = queue
        self._vitals = vitals
        self._worker = worker
        self._announcer = announcer
        self._constant = process_members() | {
            "queue": clean(keys.waiting),
            "processor": clean(role.name),
            "concurrency": role.concurrency,
        }
        self._before = (vitals.counters.processed, time.monotonic())
        self._state: object = None
        """The state that was published last; None before."""
        self._again = 0.0
        """The time to publish again even without a change: the server may have lost it."""
        self._not_before = 0.0

    async def run(self) -> None:
        """Be announced until cancelled."""
        self._announcer.members.add(self)
        try:
            await asyncio.Event().wait()
        finally:
            self._announcer.members.discard(self)

    def is_due(self, now: float) -> bool:
        """Return True if there is something to publish."""
        if now < self._not_before:
            return False
        return bool(now >= self._again or self._worker.running or self._state != self._current_state())

    def _current_state(self) -> object:
        processed, _ = self._before
        counters = self._vitals.counters
        # A rate that is not 0 is published once more, when it is.
        return self._queue.worker, _COUNTS(counters), processed == counters.processed

    def call(self) -> tuple[list[str], list[Any]]:
        """Return the arguments of present.lua."""
        description = orjson.dumps(self._description())
        self._state = self._current_state()
        return [self._keys.workers, self._keys.presence], [self._queue.worker, description]

    def answered(self, reply: Any, again: float) -> None:
        """Handle the reply of present.lua; publish `again` at that time, if nothing changes before."""
        self._again = again
        if isinstance(reply, DamagedKey):
            self._queue.damaged(reply)
        elif isinstance(reply, Refused):  # the user may lack only the permission for this key
            self._not_before = time.monotonic() + REFUSED_PAUSE
        if reply != 1:
            self._state = None

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
        task: dict[str, Any] = {"id": id, "seconds": round(seconds, 3)}
        if delivery.function is not None:
            task["function"] = clean(delivery.function[:_MOST_CHARACTERS])
        if delivery.progress is not None:
            task["progress"] = clean(delivery.progress[:_MOST_CHARACTERS])
        named.append(task)
    return named


def _id(raw: bytes) -> str | None:
    try:
        return clean(read_object(raw)[0][:_MOST_CHARACTERS])
    except Unreadable:
        return None


class Announcer:
    """The publisher for all workers on one connection: one call for all descriptions, one for the process itself."""

    def __init__(self, connection: Connection) -> None:
        self.members: set[Presence] = set()
        self._connection = connection
        self._is_announced = False
        self._mute_until = 0.0
        """The time until which the process is not announced, after a refusal: all workers are, each time."""

    async def run(self) -> None:
        """Publish until cancelled."""
        await keep_announced(self._publish, lambda _: None)

    async def close(self) -> None:
        """Announce the end of the process's work. Raises nothing."""
        if self._is_announced:
            with suppress(Disconnected, Refused):
                await self._connection.call("ZREM", PROCESSES, process_name(), patience=_END_PATIENCE)

    async def _publish(self) -> None:
        is_heard = await self._beat()
        now = time.monotonic()
        due = [member for member in self.members if not is_heard or member.is_due(now)]
        replies = await run_each(self._connection, "present", [member.call() for member in due])
        for member, reply in zip(due, replies, strict=True):
            member.answered(reply, now + random.uniform(0.5, 1.0) * max(_AGAIN, len(self.members) * _AGAIN_EACH))

    async def _beat(self) -> bool:
        """Announce the process. Return False if that is not possible."""
        if time.monotonic() < self._mute_until:
            return False
        try:
            await self._connection.run("beat", [PROCESSES], [process_name(), _FORGOTTEN_MS])
        except Refused:
            self._mute_until = time.monotonic() + REFUSED_PAUSE
            return False
        self._is_announced = True
        return True
