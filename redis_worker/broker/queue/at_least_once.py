"""The queue with at-least-once delivery: claims number tasks and move them in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import count
from time import monotonic
from typing import Any

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.error_translation import UnknownScript
from redis_worker.broker.keys import SPAN, Keys
from redis_worker.broker.queue import large_tasks
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.in_flight import InFlight
from redis_worker.broker.queue.large_tasks import MANY, read_large_tasks
from redis_worker.broker.queue.lease import LeaseKeeper
from redis_worker.broker.queue.pause import Pause
from redis_worker.broker.queue.registration import Registration
from redis_worker.broker.queue.settlement import Limits
from redis_worker.broker.scripts import script
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey, WrongType
from redis_worker.vocabulary.payload import are_plain
from redis_worker.vocabulary.task import Delivery

# Seconds that one blocking pop waits on the server; a stop waits for it, since it is never
# cancelled. Its connection counts as dead after the longer time.
BLOCK = 1.0
_BLOCK_PATIENCE = BLOCK + 5.0
# Seconds without a task after which a worker waits at the doorbell, which takes a round trip more than a blocking pop.
_LINGER = 10.0
# Shortest wait at the doorbell, in seconds, and its length for each bell, of which a queue has three. A claim then
# shows that the lease is lost, or that the user has no rights any more.
_WAIT, _FOR_EACH = 5.0, 0.3
# Longest wait after a claim without a reply, in seconds: the server may still execute it.
_UNSURE_WAIT = 30.0
# Pauses in seconds: where claiming again at once would spin, and where a key must be repaired first.
_RETRY_PAUSE = 0.02
_REPAIR_PAUSE = 1.0

# More tasks than any claim takes.
_NEVER = 10**9

# States of claim.lua.
_OK, _LEASE_LOST, _ALONE, _PAUSED = 0, 1, 2, 3


class AtLeastOnceQueue(InFlight):
    """The port `Queue` over Redis: no claimed task is lost when its worker dies."""

    def __init__(
        self,
        ordinary: Connection,
        blocking: Connection,
        doorbell: Doorbell,
        keys: Keys,
        keeper: LeaseKeeper,
        observer: Observer,
        *,
        max_deliveries: int,
        limits: Limits,
        output_apart: bool = False,
        forward: str | None = None,
    ) -> None:
        """`forward` is the list that results of successes are passed on to, as tasks, instead of the output hash."""
        registration = Registration(ordinary, keys, keeper, observer, self.ring)
        super().__init__(ordinary, keys, registration, observer, limits, output_apart=output_apart, forward=forward)
        self._blocking = blocking
        self._doorbell = doorbell
        self._bell = doorbell.bell(*keys.lists, keys.paused)
        self._max_deliveries = max_deliveries
        self._lease_ms = int(keeper.seconds * 1000)
        self._pause = Pause(observer)
        self._drained = False
        """True if the last claim emptied the queue: the next one may wait at once."""
        self.cut_short = False
        self._found_at = monotonic()
        """The time when a claim last found a task; at first, that of the start, when each command is to be tried."""
        self._last = 0
        """The greatest number of a task so far. It goes on from lease to lease, so that no two tasks share one."""
        self._by_priority: tuple[Any, ...] = ()
        """The arguments of claims by priorities, but the next turn."""
        self._turn = 0
        """The next turn: one for each task."""
        if keys.priorities is not None:
            self._by_priority = ",".join(keys.priorities.others), keys.priorities.order, keys.priorities.turns
            self._turn = keys.priorities.any_turn()
        self._make_names()

    async def open(self) -> None:
        """Take a lease. Raises Disconnected or Refused."""
        await self._registration.begin()

    async def close(self) -> None:
        """Return all tasks in flight, uncharged, and give up the lease. Raises Disconnected or Refused."""
        self._bell.close()
        await self._registration.end()

    def ring(self) -> None:
        """End a wait at the doorbell."""
        self._bell.ring()

    def _make_names(self) -> None:
        super()._make_names()
        keys = self._keys
        inflight, _, bundles = self._missing_keys
        arrived = keys.arrived(self.worker)
        self._claimed_keys = [keys.waiting, inflight, arrived, keys.workers, keys.attempts, keys.paused, bundles]
        self._claimed_keys += keys.other_lists
        self._pop = ("BLMOVE", keys.waiting, arrived, "LEFT", "RIGHT", BLOCK)

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """See the port. If a key needed for claiming is damaged, return nothing; without `wait`, raise DamagedKey."""
        registration = self._registration
        try:
            if registration.lease.lost:
                await registration.replace()
                self._make_names()
                await registration.begin()
            lease = registration.lease
            lease.unanswered += 1
            try:
                deliveries = await self._claim(limit, wait)
            except WrongType:
                lease.unanswered -= 1  # this is an answer
                raise
        except DamagedKey as error:
            if not wait:
                raise
            await self._wait_for_repair(error)
            return []
        except WrongType as error:
            await self._leave_damaged_keys(error)
            return []
        lease.unanswered -= 1
        if self._pause.on and wait:
            await self._pause.wait()
        return deliveries

    async def _claim(self, limit: int, wait: bool) -> list[Delivery]:
        if self._by_priority:  # a blocking pop waits for one list
            if wait and self._drained:
                return await self._claim_when_rung(limit)
            return await self._claim_now(self._ordinary, limit)
        is_idle = monotonic() - self._found_at > _LINGER and self._doorbell.notifies
        if not (wait and self._drained):
            deliveries = await self._claim_now(self._ordinary if is_idle else self._blocking, limit)
            if deliveries or not (wait and self._drained):
                return deliveries
        if is_idle:
            await self._blocking.cut()
            return await self._claim_when_rung(limit)
        started = monotonic()
        # Sent together, so that the popped task is claimed without another round trip, and even if
        # this worker dies in between.
        keys = self._claimed_keys
        claim = ("EVALSHA", script("claim").digest, len(keys), *keys, *self._claim_arguments(limit))
        popped, reply = await self._blocking.together(self._pop, claim, patience=_BLOCK_PATIENCE)
        if isinstance(popped, Exception):
            raise popped
        if isinstance(reply, UnknownScript):
            return await self._claim_now(self._blocking, limit)
        if isinstance(reply, Exception):
            raise reply
        if popped is None and monotonic() - started < BLOCK / 2:  # the server does not block, like fakeredis
            await asyncio.sleep(_RETRY_PAUSE)
        return await self._deliveries_of(reply, limit)

    async def _claim_now(self, connection: Connection, limit: int) -> list[Delivery]:
        reply = await connection.run("claim", self._claimed_keys, self._claim_arguments(limit))
        if isinstance(reply[0], list):
            return await self._deliveries_by_priority(reply, limit)
        return await self._deliveries_of(reply, limit)

    async def _claim_when_rung(self, limit: int) -> list[Delivery]:
        """Wait at the doorbell, with a lease at rest and without a connection, then claim."""
        lease = self._registration.lease
        lease.idle = is_sure = lease.unanswered == 1  # this claim, which is not sent yet
        # The more queues there are, the longer each waits: together they ask about once a second.
        seconds = max(_WAIT, len(self._doorbell.all) * _FOR_EACH)
        await self._bell.wait(seconds if is_sure else min(seconds, _UNSURE_WAIT))
        lease.stir()
        self._drained = False  # until a reply shows it: an unanswered claim is repeated without a wait
        deliveries = await self._claim_now(self._ordinary, limit)
        if self._drained and not deliveries:
            lease.rest_on()
        return deliveries

    def _claim_arguments(self, limit: int) -> list[Any]:
        lease = self._registration.lease
        many = MANY if self._in_order else _NEVER
        arguments = [lease.name, limit, self._max_deliveries, self._last, large_tasks.LARGE_BYTES, self._lease_ms, many]
        return [*arguments, *self._by_priority, self._turn] if self._by_priority else arguments

    async def _wait_for_repair(self, error: DamagedKey) -> None:
        """Report a damaged key, and pause before the next use of it."""
        self.damaged(error)
        self._drained = False  # or the next blocking pop would take a task that cannot be claimed
        await asyncio.sleep(_REPAIR_PAUSE)

    async def _leave_damaged_keys(self, error: WrongType) -> None:
        """Continue under a new name, with all tasks, if a key of the present one holds another type.

        Raises `error` otherwise. Recovery reports the damaged key, and returns what it holds once it is mended.
        """
        async with self._name_in_use:
            damages = await self._registration.rename()
            self._make_names()
        if not damages:
            raise error
        for damage in damages:
            self.damaged(damage)

    async def _deliveries_by_priority(self, reply: list[Any], limit: int) -> list[Delivery]:
        """Return the tasks of a reply for each list."""
        deliveries: list[Delivery] = []
        for of_list in reply:
            deliveries += await self._deliveries_of(of_list, limit)
        self._turn += len(deliveries)
        self._drained = len(deliveries) < limit and not any(large for _, _, _, _, large, *_ in reply)
        return deliveries

    async def _deliveries_of(self, reply: list[Any], limit: int) -> list[Delivery]:
        lease = self._registration.lease
        state, tasks, counts, first, first_large, end, *found = reply
        large = range(first_large, end)
        self._last = max(self._last, first % SPAN + len(tasks) - 1, end % SPAN - 1)
        self.cut_short = bool(large)
        self._drained = state == _OK and not large and len(tasks) < limit
        if tasks or large:
            self._found_at = monotonic()
        if state == _LEASE_LOST:
            await self._registration.check()
        elif state or self._pause.on:
            self._pause.update(state == _PAUSED)
        if found:
            self.damaged(DamagedKey(self._keys.attempts, found[0].decode(), "hash"))
        if state == _ALONE:
            await asyncio.sleep(_RETRY_PAUSE)
        if counts:
            return self._counted(range(first, first + len(tasks)), tasks, counts)
        plain = are_plain(tasks)
        deliveries = [Delivery(raw, lease, 0, 0, plain, False, number) for number, raw in zip(count(first), tasks)]
        if large:
            deliveries += await read_large_tasks(self._blocking, self._keys, lease, large)
        return deliveries

    def _counted(self, numbers: Sequence[int], tasks: Sequence[bytes], counts: Sequence[int]) -> list[Delivery]:
        lease = self._registration.lease
        return [
            Delivery(raw, lease, deaths, retries, number=number)
            for number, raw, deaths, retries in zip(numbers, tasks, counts[::2], counts[1::2], strict=True)
        ]

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:
        """See the port."""
        known = [delivery.number for delivery in held]
        try:
            numbers, tasks, counts = await self._blocking.run("missing", self._missing_keys, known)
        except WrongType as error:
            await self._leave_damaged_keys(error)
            return []
        self._last = max([self._last, *(number % SPAN for number in numbers)])
        return self._counted(numbers, tasks, counts or [0] * (2 * len(tasks)))
