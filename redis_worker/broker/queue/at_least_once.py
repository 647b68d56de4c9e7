"""The queue with at-least-once delivery: claims move tasks to the worker's in-flight list."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.error_translation import UnknownScript
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.lease import Lease, LeaseKeeper, renew_lease, worker_name
from redis_worker.broker.queue.pause import Pause
from redis_worker.broker.queue.refused_content import retry_hangups
from redis_worker.broker.queue.results_writer import write_results
from redis_worker.broker.queue.settlement import COUNTS_MS, Limits, Settlement, settlements
from redis_worker.broker.scripts import script
from redis_worker.ports import Observer, Unwritten
from redis_worker.vocabulary.errors import DamagedKey, Disconnected, Unacceptable
from redis_worker.vocabulary.payload import has_long_number
from redis_worker.vocabulary.task import Delivery, Outcome

# Seconds that one blocking pop waits on the server; a stop waits for it, since it is never
# cancelled. Its connection counts as dead after the longer time.
BLOCK = 1.0
_BLOCK_PATIENCE = BLOCK + 5.0
# Longest time for giving up a lease, in seconds: a stop waits for it, and the server may hang.
_CLOSE_PATIENCE = 2.0
# Time for which a retired worker's in-flight list is checked: a late BLMOVE may sit in a socket until
# TCP gives up, after some 15 minutes.
RETIRED_MS = 3_600_000
# Pauses in seconds: where claiming again at once would spin, and where a key must be repaired first.
_RETRY_PAUSE = 0.02
_REPAIR_PAUSE = 1.0

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
        self._keeper = keeper
        self._observer = observer
        self._max_deliveries = max_deliveries
        self._limits = limits
        self._output_apart = output_apart
        """In Redis Cluster: the output hash lies in another slot than the queue."""
        self._lease = Lease(worker_name())
        self._pause = Pause(observer)
        self._opened = False
        self._drained = False
        """True if the last claim emptied the queue: the next one may wait at once."""

    @property
    def worker(self) -> str:
        """The current name of this worker."""
        return self._lease.name

    async def open(self) -> None:
        """Take a lease. Raises Disconnected or Refused."""
        await self._register()
        self._opened = True

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """See the port. If a key needed for claiming is damaged, return nothing; without `wait`, raise DamagedKey."""
        try:
            if self._lease.lost:
                await self._register_anew()
            deliveries = await self._claim_under(self._lease, limit, wait)
        except DamagedKey as error:
            if not wait:
                raise
            await self._wait_for_repair(error)
            return []
        if self._pause.on and wait:
            await self._pause.wait()
        return deliveries

    async def _claim(self, limit: int, wait: bool) -> list[Delivery]:
        command = self._claim_command(limit)
        if not (wait and self._drained):
            deliveries = await self._deliveries_of(await self._blocking.run(*command), limit)
            if deliveries or not (wait and self._drained):
                return deliveries
        started = self._now()
        arrived = self._keys.arrived(self._lease.name)
        pop = ("BLMOVE", self._keys.waiting, arrived, "LEFT", "RIGHT", BLOCK)
        name, keys, arguments = command
        # Sent together, so that the popped task is claimed without another round trip, and even if
        # this worker dies in between.
        claim = ("EVALSHA", script(name).digest, len(keys), *keys, *arguments)
        popped, reply = await self._blocking.together(pop, claim, patience=_BLOCK_PATIENCE)
        if isinstance(popped, Exception):
            raise popped
        if isinstance(reply, UnknownScript):
            return await self._deliveries_of(await self._blocking.run(*command), limit)
        if isinstance(reply, Exception):
            raise reply
        if popped is None and self._now() - started < BLOCK / 2:  # the server does not block, like fakeredis
            await asyncio.sleep(_RETRY_PAUSE)
        return await self._deliveries_of(reply, limit)

    async def _claim_under(self, lease: Lease, limit: int, wait: bool) -> list[Delivery]:
        lease.unanswered += 1
        try:
            deliveries = await self._claim(limit, wait)
        except DamagedKey:
            lease.unanswered -= 1  # this is an answer
            raise
        lease.unanswered -= 1
        return deliveries

    async def _wait_for_repair(self, error: DamagedKey) -> None:
        """Report a damaged key, and pause before the next use of it."""
        self.damaged(error)
        self._drained = False  # or the next blocking pop would take a task that cannot be claimed
        await asyncio.sleep(_REPAIR_PAUSE)

    def damaged(self, error: DamagedKey) -> None:
        """Report a damaged key to the observer."""
        self._observer.damaged(error)

    def _claim_command(self, limit: int) -> tuple[str, list[str], list[Any]]:
        keys, name = self._keys, self._lease.name
        return (
            "claim",
            [keys.waiting, keys.inflight(name), keys.arrived(name), keys.workers, keys.attempts, keys.paused],
            [name, limit, self._max_deliveries],
        )

    async def _deliveries_of(self, reply: list[Any], limit: int) -> list[Delivery]:
        lease = self._lease
        state, tasks, counts, *found = reply
        self._drained = state == _OK and len(tasks) < limit
        if state == _LEASE_LOST and not await renew_lease(
            self._ordinary, self._registries, lease, self._keeper.seconds
        ):
            self._lose(lease)
        elif state or self._pause.on:
            self._pause.update(state == _PAUSED)
        if found:
            self.damaged(DamagedKey(self._keys.attempts, found[0].decode(), "hash"))
        if state == _ALONE:
            await asyncio.sleep(_RETRY_PAUSE)
        if counts:
            return [
                Delivery(raw, lease, deaths, retries)
                for raw, deaths, retries in zip(tasks, counts[::2], counts[1::2], strict=True)
            ]
        plain = not has_long_number(tasks)
        return [Delivery(raw, lease, 0, 0, plain) for raw in tasks]

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:
        """See the port."""
        lease = self._lease
        # Counted before the list is read, which may still contain tasks settled meanwhile.
        known = Counter(delivery.raw for delivery in held if delivery.receipt is lease)
        keys = [self._keys.inflight(lease.name), self._keys.attempts]
        listed, counts = await self._blocking.run("missing", keys, [])
        missing = (Counter(listed) - known).elements()
        if not counts:
            return [Delivery(raw, lease) for raw in missing]
        counts_of = dict(zip(listed, zip(counts[::2], counts[1::2], strict=True), strict=True))
        return [Delivery(raw, lease, *counts_of[raw]) for raw in missing]

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See the port. Fenced: nothing is written for a task that is no longer in flight here."""
        # A worker has one lease at a time: tasks claimed under an earlier one are lost.
        lost = [outcome for outcome in outcomes if outcome.delivery.receipt.lost]
        if lost:
            outcomes = [outcome for outcome in outcomes if not outcome.delivery.receipt.lost]
        worker = self._lease.name
        unwritten: list[tuple[DamagedKey | Unacceptable, Sequence[Outcome]]] = []
        for settlement in settlements(outcomes, worker, self._keys, self._limits):
            try:
                reply = await self._write(settlement, worker)
            except Unacceptable as error:
                unwritten.append((error, settlement.outcomes))
                continue
            if reply:
                verdict = settlement.verdict(reply)
                lost += verdict.lost
                unwritten += verdict.left
                for damage in verdict.damages:
                    self.damaged(damage)
        if unwritten:
            raise Unwritten(unwritten, lost)
        return lost

    async def _write(self, settlement: Settlement, worker: str) -> list[Any]:
        """Return the reply of settle.lua. Raises Disconnected, Refused, or Unacceptable if the content is refused."""
        connection, keys, count = self._ordinary, self._settled_keys(worker), len(settlement.outcomes)

        async def write() -> list[Any]:
            if self._output_apart:
                await write_results(connection, self._keys, settlement.outcomes, self._limits.result_ttl)
            reply: list[Any] = await connection.run("settle", keys, settlement.arguments())
            return reply

        try:
            return await retry_hangups(connection, write, settlement.size, count)
        except Unacceptable:
            if not settlement.cut_letter(worker):
                raise
            return await retry_hangups(connection, write, settlement.size, count)

    def _settled_keys(self, worker: str) -> list[str]:
        keys = self._keys
        settled = [keys.inflight(worker), keys.attempts, keys.dead, keys.workers, keys.delayed, keys.dropped]
        return [*settled, keys.output] if keys.output and not self._output_apart else settled

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        held = [delivery.raw for delivery in deliveries if not delivery.receipt.lost]
        if not held:
            return
        lease = self._lease
        try:
            await self._ordinary.run("release", [self._keys.inflight(lease.name), self._keys.waiting], held)
        except DamagedKey as error:
            self.damaged(error)
        except Unacceptable:
            pass  # they stay in flight, and `missing` finds them

    async def close(self) -> None:
        """Return all tasks in flight, uncharged, and give up the lease. Raises Disconnected or Refused."""
        if not self._opened:
            return
        try:
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await self._retire(self._lease)
        except TimeoutError:
            raise Disconnected("the server does not answer") from None  # it may still execute the script later

    async def _register_anew(self) -> None:
        """Continue under a new name: tasks claimed under the old one belong to other workers."""
        await self._retire(self._lease)
        self._lease = Lease(worker_name())
        await self._register()

    async def _register(self) -> None:
        lease, milliseconds = self._lease, int(self._keeper.seconds * 1000)
        await self._ordinary.run("register", [self._keys.workers, self._keys.claimants], [lease.name, milliseconds])
        loop = asyncio.get_running_loop()
        self._keeper.keep(self._registries, lease, lambda: _notify_lease_lost(loop, self._observer, lease.name))

    async def _retire(self, lease: Lease) -> None:
        """Return the tasks in flight; if a late reply may move more, have other workers watch for it."""
        self._keeper.drop(lease)
        await reclaim(
            self._ordinary, self._keys, lease.name, force=True, retired_ms=RETIRED_MS if lease.unanswered else 0
        )

    @property
    def _registries(self) -> list[str]:
        return [self._keys.workers, self._keys.retired, self._keys.claimants]

    def _lose(self, lease: Lease) -> None:
        if not lease.lost:
            lease.lost = True
            self._observer.lease_lost(lease.name)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def reclaim(
    connection: Connection, keys: Keys, worker: str, force: bool = False, retired_ms: int = RETIRED_MS
) -> int:
    """Return the tasks of `worker` to the queue. Returns their number, or -1 if it has a lease and `force` is off."""
    count: int = await connection.run(
        "reclaim",
        [
            *(keys.workers, keys.retired, keys.inflight(worker), keys.waiting, keys.attempts),
            *(keys.arrived(worker), keys.presence, keys.claimants),
        ],
        [worker, retired_ms, COUNTS_MS, int(force)],
    )
    return count


def _notify_lease_lost(loop: asyncio.AbstractEventLoop, observer: Observer, worker: str) -> None:
    """Forward the loss of a lease from the keeper's thread to the observer, on the event loop."""
    try:
        loop.call_soon_threadsafe(observer.lease_lost, worker)
    except RuntimeError:
        pass  # the loop is closed
