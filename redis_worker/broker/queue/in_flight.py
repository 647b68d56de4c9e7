"""The tasks in flight of a worker, until they are settled or released."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.refused_content import retry_hangups
from redis_worker.broker.queue.registration import Registration
from redis_worker.broker.queue.results_writer import write_results
from redis_worker.broker.queue.settlement import Limits, Settlement, settlements
from redis_worker.ports import Observer, Unwritten
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Unacceptable
from redis_worker.vocabulary.task import Delivery, Outcome

# Somebody may wait for each of so few results.
_FEW = 8


class InFlight:
    """The part of a queue that ends the flight of tasks, under the name of the worker that has claimed them."""

    def __init__(
        self,
        ordinary: Connection,
        keys: Keys,
        registration: Registration,
        observer: Observer,
        limits: Limits,
        *,
        output_apart: bool,
        forward: str | None,
    ) -> None:
        """See AtLeastOnceQueue. It calls `_make_names` at the end of its own constructor."""
        self._ordinary = ordinary
        self._keys = keys
        self._registration = registration
        self._observer = observer
        self._limits = limits if forward is None else replace(limits, remember=-2)
        self._output_apart = output_apart
        """In Redis Cluster: the output hash lies in another slot than the queue."""
        self._forward = forward
        self._has_records = False
        self._in_order = True
        """True if the last settlement of many tasks was one of tasks that had been claimed one after the other."""
        self._name_in_use = asyncio.Lock()
        """Held by calls that write under the worker's name, which must not change meanwhile."""

    @property
    def worker(self) -> str:
        """The current name of this worker."""
        return self._registration.lease.name

    def _make_names(self) -> None:
        """Make the arguments of calls that change only with the lease."""
        keys, name = self._keys, self.worker
        inflight, bundles = keys.inflight(name), keys.bundles(name)
        self._settled_keys = [inflight, keys.attempts, keys.dead, keys.workers, keys.delayed, keys.dropped, bundles]
        self._missing_keys = [inflight, keys.attempts, bundles]
        if keys.output and not self._output_apart:
            self._settled_keys.append(keys.output)
        if self._forward is not None:
            self._settled_keys.append(self._forward)
        if self._has_records:
            self._settled_keys += [keys.unique, keys.cancelled]

    def end_records(self) -> None:
        """Have settlements end the records of unique tasks, and the marks of cancelled ones, from now on.

        A thread may call this: the keys come first, since a settlement that names more than it uses does no harm.
        """
        if not self._has_records:
            self._has_records = True
            self._settled_keys = [*self._settled_keys, self._keys.unique, self._keys.cancelled]
            self._limits = replace(self._limits, remember=-1)

    def damaged(self, error: DamagedKey) -> None:
        """Report a damaged key to the observer."""
        self._observer.damaged(error)

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
            if (is_in_order := settlement.is_in_order) is not None:
                self._in_order = is_in_order
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
            return await self._end_claims("settle", self._settled_keys, arguments, last=count <= _FEW)

        try:
            return await retry_hangups(connection, write, settlement.size, count)
        except Unacceptable:
            if not settlement.cut_letter(lease.name):
                raise
            return await retry_hangups(connection, write, settlement.size, count)

    async def _end_claims(self, name: str, keys: list[str], arguments: list[Any], last: bool = False) -> list[Any]:
        """Return the reply of a script that takes tasks out of flight; without a reply, the lease is `unsure`.

        `last`: see `Connection.run`.
        """
        lease = self._registration.lease
        try:
            reply: list[Any] = await self._ordinary.run(name, keys, arguments, last=last)
        except Disconnected:
            lease.unsure = True
            raise
        return reply

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        async with self._name_in_use:
            held = [delivery for delivery in deliveries if not delivery.receipt.lost]
            for queue, some in self._keys.by_list(held).items():
                if (unheld := await self._release(queue, some)) and not self._registration.lease.unsure:
                    await self._release(queue, [some[position] for position in unheld], force=True)

    async def _release(self, queue: str, held: Sequence[Delivery], force: bool = False) -> list[int]:
        """Return tasks to the list `queue`. Returns the positions of those not in flight, see release.lua."""
        inflight, _, bundles = self._missing_keys
        keys = [inflight, queue, self._keys.workers, bundles]
        named = [delivery.raw if force else delivery.number for delivery in held]
        try:
            return await self._end_claims("release", keys, [self.worker, "1" if force else "", *named])
        except Unacceptable:
            return []  # they stay in flight, and `missing` finds them
