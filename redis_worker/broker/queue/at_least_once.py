"""The queue with at-least-once delivery: claims number tasks and move them in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import Any

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.connection.error_translation import UnknownScript
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.lease import LeaseKeeper
from redis_worker.broker.queue.pause import Pause
from redis_worker.broker.queue.refused_content import retry_hangups
from redis_worker.broker.queue.registration import Registration
from redis_worker.broker.queue.results_writer import write_results
from redis_worker.broker.queue.settlement import Limits, Settlement, settlements
from redis_worker.broker.scripts import script
from redis_worker.ports import Observer, Unwritten
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Unacceptable, WrongType
from redis_worker.vocabulary.payload import are_plain
from redis_worker.vocabulary.task import Delivery, Outcome

# Seconds that one blocking pop waits on the server; a stop waits for it, since it is never
# cancelled. Its connection counts as dead after the longer time.
BLOCK = 1.0
_BLOCK_PATIENCE = BLOCK + 5.0
# Pauses in seconds: where claiming again at once would spin, and where a key must be repaired first.
_RETRY_PAUSE = 0.02
_REPAIR_PAUSE = 1.0

# Bytes from which a task in flight has a list of its own, since a script would read each of them.
LARGE_BYTES = 8192

# States of claim.lua.
_OK, _LEASE_LOST, _ALONE, _PAUSED = 0, 1, 2, 3


class AtLeastOnceQueue:
    """The port `Queue` over Redis: no claimed task is lost when its worker dies."""

    def __init__(
        self,
        ordinary: Connection,
        blocking: Connection,
        keys: Keys,
        keeper: LeaseKeeper,
        observer: Observer,
        *,
        max_deliveries: int,
        limits: Limits,
        output_apart: bool = False,
    ) -> None:
        self._ordinary = ordinary
        self._blocking = blocking
        self._keys = keys
        self._observer = observer
        self._max_deliveries = max_deliveries
        self._limits = limits
        self._output_apart = output_apart
        """In Redis Cluster: the output hash lies in another slot than the queue."""
        self._registration = Registration(ordinary, keys, keeper, observer, self.ring)
        self._pause = Pause(observer)
        self._name_in_use = asyncio.Lock()
        """Held by calls that write under the worker's name, which must not change meanwhile."""
        self._drained = False
        """True if the last claim emptied the queue: the next one may wait at once."""
        self._last = 0
        """The greatest number of a task so far. It goes on from lease to lease, so that no two tasks share one."""
        self._make_names()

    @property
    def worker(self) -> str:
        """The current name of this worker."""
        return self._registration.lease.name

    async def open(self) -> None:
        """Take a lease. Raises Disconnected or Refused."""
        await self._registration.begin()

    async def close(self) -> None:
        """Return all tasks in flight, uncharged, and give up the lease. Raises Disconnected or Refused."""
        await self._registration.end()

    def ring(self) -> None:
        """End a wait for tasks, if it can be ended."""

    def _make_names(self) -> None:
        """Make the arguments of claims and settlements that change only with the lease."""
        keys, name = self._keys, self._registration.lease.name
        inflight, arrived, large = keys.inflight(name), keys.arrived(name), keys.large(name)
        self._claimed_keys = [keys.waiting, inflight, arrived, keys.workers, keys.attempts, keys.paused, large]
        self._settled_keys = [inflight, keys.attempts, keys.dead, keys.workers, keys.delayed, keys.dropped, large]
        self._missing_keys = [inflight, keys.attempts, large]
        if keys.output and not self._output_apart:
            self._settled_keys.append(keys.output)
        if self._limits.remember < 0:
            self._settled_keys.append(keys.cancelled)
        self._pop = ("BLMOVE", keys.waiting, arrived, "LEFT", "RIGHT", BLOCK)

    def end_marks(self) -> None:
        """Have settlements remove the marks of cancelled tasks, from now on."""
        if self._limits.remember == 0:
            self._limits = replace(self._limits, remember=-1)
            self._make_names()

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
        keys, arguments = self._claimed_keys, self._claim_arguments(limit)
        if not (wait and self._drained):
            deliveries = await self._deliveries_of(await self._blocking.run("claim", keys, arguments), limit)
            if deliveries or not (wait and self._drained):
                return deliveries
        started = monotonic()
        # Sent together, so that the popped task is claimed without another round trip, and even if
        # this worker dies in between.
        claim = ("EVALSHA", script("claim").digest, len(keys), *keys, *arguments)
        popped, reply = await self._blocking.together(self._pop, claim, patience=_BLOCK_PATIENCE)
        if isinstance(popped, Exception):
            raise popped
        if isinstance(reply, UnknownScript):
            return await self._deliveries_of(await self._blocking.run("claim", keys, arguments), limit)
        if isinstance(reply, Exception):
            raise reply
        if popped is None and monotonic() - started < BLOCK / 2:  # the server does not block, like fakeredis
            await asyncio.sleep(_RETRY_PAUSE)
        return await self._deliveries_of(reply, limit)

    def _claim_arguments(self, limit: int) -> list[Any]:
        return [self._registration.lease.name, limit, self._max_deliveries, self._last, LARGE_BYTES]

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

    def damaged(self, error: DamagedKey) -> None:
        """Report a damaged key to the observer."""
        self._observer.damaged(error)

    async def _deliveries_of(self, reply: list[Any], limit: int) -> list[Delivery]:
        lease = self._registration.lease
        state, tasks, counts, first, large, *found = reply
        self._last = max(self._last, first + len(tasks) + large - 1)
        self._drained = state == _OK and not large and len(tasks) < limit
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
        return deliveries + await self._read_large(first + len(tasks), large) if large else deliveries

    async def _read_large(self, first: int, size: int) -> list[Delivery]:
        """Return large tasks in flight, as far as they are still there: the lease may have been lost meanwhile."""
        lease = self._registration.lease
        numbers = range(first, first + size)
        reads = [("LINDEX", self._keys.large_task(lease.name, number), 0) for number in numbers]
        replies = await self._blocking.together(*reads, patience=PATIENCE)
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, WrongType):
                raise reply
        return [Delivery(raw, lease, number=number) for number, raw in zip(numbers, replies) if isinstance(raw, bytes)]

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
        self._last = max([self._last, *numbers])
        return self._counted(numbers, tasks, counts or [0] * (2 * len(tasks)))

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See the port. Fenced: nothing is written for a task that is no longer in flight here."""
        async with self._name_in_use:
            return await self._settle(outcomes)

    async def _settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        # Tasks claimed under a lost lease are lost.
        lost = [outcome for outcome in outcomes if outcome.delivery.receipt.lost]
        if lost:
            outcomes = [outcome for outcome in outcomes if not outcome.delivery.receipt.lost]
        unwritten: list[tuple[DamagedKey | Unacceptable, Sequence[Outcome]]] = []
        unheld = await self._write_all(outcomes, lost, unwritten)
        if unheld and not self._registration.lease.unsure:
            # Somebody deleted the tasks in flight, or overwrote them.
            await self._write_all(unheld, lost, unwritten, force=True)
        if unwritten:
            raise Unwritten(unwritten, lost)
        return lost

    async def _write_all(
        self,
        outcomes: Sequence[Outcome],
        lost: list[Outcome],
        unwritten: list[tuple[DamagedKey | Unacceptable, Sequence[Outcome]]],
        force: bool = False,
    ) -> list[Outcome]:
        """Write `outcomes`, adding to `lost` and `unwritten`. Returns those not in flight, see settle.lua."""
        unheld: list[Outcome] = []
        for settlement in settlements(outcomes, self.worker, self._keys, self._limits):
            try:
                reply = await self._write(settlement, force)
            except Unacceptable as error:
                unwritten.append((error, settlement.outcomes))
                continue
            if reply:
                verdict = settlement.verdict(reply)
                lost += verdict.lost
                unheld += verdict.unheld
                unwritten += verdict.left
                for damage in verdict.damages:
                    self.damaged(damage)
        return unheld

    async def _write(self, settlement: Settlement, force: bool) -> list[Any]:
        """Return the reply of settle.lua. Raises Disconnected, Refused, or Unacceptable if the content is refused."""
        connection, lease, count = self._ordinary, self._registration.lease, len(settlement.outcomes)

        async def write() -> list[Any]:
            if self._output_apart:
                await write_results(connection, self._keys, settlement.outcomes, self._limits.lifetimes)
            # What an attempt without a reply may have settled is not written by the next one.
            arguments = settlement.arguments(force and not lease.unsure)
            return await self._end_claims("settle", self._settled_keys, arguments)

        try:
            return await retry_hangups(connection, write, settlement.size, count)
        except Unacceptable:
            if not settlement.cut_letter(lease.name):
                raise
            return await retry_hangups(connection, write, settlement.size, count)

    async def _end_claims(self, name: str, keys: list[str], arguments: list[Any]) -> list[Any]:
        """Return the reply of a script that takes tasks out of flight; without a reply, the lease is `unsure`."""
        lease = self._registration.lease
        try:
            reply: list[Any] = await self._ordinary.run(name, keys, arguments)
        except Disconnected:
            lease.unsure = True
            raise
        return reply

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        async with self._name_in_use:
            held = [delivery for delivery in deliveries if not delivery.receipt.lost]
            if held and (unheld := await self._release(held)) and not self._registration.lease.unsure:
                await self._release([held[position] for position in unheld], force=True)

    async def _release(self, held: Sequence[Delivery], force: bool = False) -> list[int]:
        """Return tasks to the queue. Returns the positions of those not in flight, see release.lua."""
        name = self._registration.lease.name
        keys = [self._keys.inflight(name), self._keys.waiting, self._keys.workers, self._keys.large(name)]
        named = [delivery.raw if force else delivery.number for delivery in held]
        try:
            return await self._end_claims("release", keys, [self.worker, "1" if force else "", *named])
        except Unacceptable:
            return []  # they stay in flight, and `missing` finds them
