"""The queue with at-least-once delivery: claims move tasks to the worker's own in-flight list."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis_worker.broker.connection import Connection, UnknownScript
from redis_worker.broker.keys import Keys
from redis_worker.broker.lease import Lease, LeaseKeeper, worker_name
from redis_worker.broker.letters import dead_letter
from redis_worker.broker.schedule import new_token
from redis_worker.broker.scripts import script
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.task import Delivery, Outcome

# How long one blocking pop waits on the server, in seconds: a stop waits for it, for it is never
# cancelled. And how long after that its connection is taken for dead.
BLOCK = 1.0
_BLOCK_PATIENCE = BLOCK + 5.0
# How long a retired worker's in-flight list is looked at: a late BLMOVE may sit in a socket until
# TCP gives up, which takes some 15 minutes.
RETIRED_MS = 3_600_000
# How often the in-flight list is compared with what is running, in seconds.
_COMPARE_EVERY = 30.0
# A pause where claiming again at once would only spin, in seconds.
_PAUSE = 0.02

# States and modes of claim.lua.
_LEASE_LOST, _ALONE, _ASK_AGAIN = 1, 2, 3
_PLAIN, _ARRIVED, _AFTER_POP = 0, 1, 2


class AtLeastOnceQueue:
    """The port `Queue` over Redis: nothing that was claimed is lost with its worker."""

    def __init__(
        self,
        ordinary: Connection,
        blocking: Connection,
        keys: Keys,
        keeper: LeaseKeeper,
        observer: Observer,
        *,
        lease: float,
        max_deliveries: int,
        limits: Limits,
        output_apart: bool = False,
    ) -> None:
        self._ordinary = ordinary
        self._blocking = blocking
        self._keys = keys
        self._keeper = keeper
        self._observer = observer
        self._lease_ms = int(lease * 1000)
        self._max_deliveries = max_deliveries
        self._limits = limits
        self._output_apart = output_apart
        """In Redis Cluster: the output hash lies in another slot than the queue."""
        self._lease = Lease(worker_name())
        self._compare_at = 0.0

    @property
    def worker(self) -> str:
        """The name this worker is known by."""
        return self._lease.name

    async def open(self) -> None:
        """Take a lease. Raises Disconnected or Refused."""
        await self._register()
        self._compare_at = self._now() + _COMPARE_EVERY
        loop = asyncio.get_running_loop()
        self._keeper.start(self._lease, lambda: _tell(loop, self._observer, self._lease.name))

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """See the port. A reply lost with its connection is found again by the next claim."""
        try:
            if self._lease.lost:
                await self._start_anew()
            if self._now() >= self._compare_at:
                if found := await self._found():
                    return found
                self._compare_at = self._now() + _COMPARE_EVERY
            lease = self._lease
            lease.unanswered += 1
            deliveries = await self._claim(limit, wait)
            lease.unanswered -= 1
            return deliveries
        except Disconnected:
            self._compare_at = 0.0
            raise

    async def _claim(self, limit: int, wait: bool) -> list[Delivery]:
        deliveries = await self._take(limit)
        if deliveries or not wait or self._lease.lost:
            return deliveries
        asked = self._now()
        inflight = self._keys.inflight(self._lease.name)
        pop = ("BLMOVE", self._keys.waiting, inflight, "LEFT", "RIGHT", BLOCK)
        # Sent together, so that what follows the first task comes without another round trip.
        raw, reply = await self._blocking.together(
            pop, self._claim_command(limit - 1, _AFTER_POP), patience=_BLOCK_PATIENCE
        )
        for answer in (raw, reply):
            if isinstance(answer, Exception) and not isinstance(answer, UnknownScript):
                raise answer
        if raw is None and self._now() - asked < BLOCK / 2:  # a server that does not block, as in fakeredis
            await asyncio.sleep(_PAUSE)
        if isinstance(reply, Exception) or reply[0] == _ASK_AGAIN:
            return [] if raw is None else await self._take(limit - 1, raw)
        return await self._taken(reply, raw)

    async def _take(self, limit: int, arrived: bytes | None = None) -> list[Delivery]:
        """Up to `limit` tasks, after the one that has `arrived` in flight by BLMOVE."""
        mode = _PLAIN if arrived is None else _ARRIVED
        return await self._taken(await self._blocking.run(*self._claim_script(limit, mode)), arrived)

    def _claim_script(self, limit: int, mode: int) -> tuple[str, list[str], list[Any]]:
        keys, name = self._keys, self._lease.name
        return (
            "claim",
            [keys.waiting, keys.inflight(name), keys.workers, keys.attempts],
            [name, limit, self._max_deliveries, mode],
        )

    def _claim_command(self, limit: int, mode: int) -> tuple[Any, ...]:
        name, keys, arguments = self._claim_script(limit, mode)
        return ("EVALSHA", script(name).digest, len(keys), *keys, *arguments)

    async def _taken(self, reply: tuple[int, list[bytes], list[int]], arrived: bytes | None) -> list[Delivery]:
        lease = self._lease
        state, tasks, counts = reply
        if state == _LEASE_LOST:
            self._lose(lease)
            return []
        if state == _ALONE:
            await asyncio.sleep(_PAUSE)
            return []
        if arrived is not None:
            tasks.insert(0, arrived)
        lease.held.update(tasks)
        if counts:
            return [
                Delivery(raw, lease, deaths, retries)
                for raw, deaths, retries in zip(tasks, counts[::2], counts[1::2], strict=True)
            ]
        return [Delivery(raw, lease) for raw in tasks]

    async def _found(self) -> list[Delivery]:
        """Tasks in flight that nobody is running: the reply of their claim was lost."""
        lease = self._lease
        # Before the list is read: what is settled meanwhile may still be in it.
        known = Counter(lease.held)
        listed = await self._blocking.call("LRANGE", self._keys.inflight(lease.name), 0, -1)
        unknown = list((Counter(listed) - known).elements())
        lease.held.update(unknown)
        return [Delivery(raw, lease) for raw in unknown]

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See the port. Fenced: of a task that is not in flight here any more nothing is written."""
        lost = [outcome for outcome in outcomes if outcome.delivery.receipt.lost]
        if lost:
            outcomes = [outcome for outcome in outcomes if not outcome.delivery.receipt.lost]
        if not outcomes:
            return lost
        # One pool has one lease at a time: what was claimed under an earlier one is lost.
        lease = self._lease
        if any(outcome.error is not None for outcome in outcomes):
            outcomes = sorted(outcomes, key=_section)
        refused = await self._write(lease, outcomes)
        for outcome in outcomes:
            lease.drop(outcome.delivery.raw)
        return lost + [outcomes[position] for position in refused]

    async def _write(self, lease: Lease, outcomes: Sequence[Outcome]) -> list[int]:
        keys = self._keys
        written = [keys.inflight(lease.name), keys.attempts, keys.dead, keys.workers, keys.delayed, keys.dropped]
        if self._output_apart:
            await write_results(self._ordinary, keys, outcomes, self._limits.result_ttl)
        else:
            written.append(keys.output)
        positions: list[int] = await self._ordinary.run(
            "settle", written, _settlement(keys, lease.name, outcomes, self._limits)
        )
        return positions

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        kept = [delivery.raw for delivery in deliveries if not delivery.receipt.lost]
        if not kept:
            return
        lease = self._lease
        await self._ordinary.run("release", [self._keys.inflight(lease.name), self._keys.waiting], kept)
        for raw in kept:
            lease.drop(raw)

    async def close(self) -> None:
        """Hand back whatever is still in flight, uncharged, and give up the lease."""
        self._keeper.stop()
        try:
            await self._retire(self._lease)
        finally:
            await asyncio.to_thread(self._keeper.join, 1.0)

    async def _start_anew(self) -> None:
        """Go on under a new name: what was claimed under the old one belongs to others now."""
        await self._retire(self._lease)
        self._lease = Lease(worker_name())
        await self._register()
        self._keeper.keep(self._lease)

    async def _register(self) -> None:
        await self._ordinary.run("register", [self._keys.workers], [self._lease.name, self._lease_ms])

    async def _retire(self, lease: Lease) -> None:
        """Return what is in flight, and have the others look for what comes late, if anything can."""
        await reclaim(
            self._ordinary, self._keys, lease.name, force=True, retired_ms=RETIRED_MS if lease.unanswered else 0
        )

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
    """Return the tasks of `worker` to the queue; how many, or -1 when it has a lease and no `force` is used."""
    count: int = await connection.run(
        "reclaim",
        [keys.workers, keys.retired, keys.inflight(worker), keys.waiting, keys.attempts],
        [worker, retired_ms, _COUNTS_MS, int(force)],
    )
    return count


# How long it is remembered how often a task was tried, in ms: a week.
_COUNTS_MS = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of what is done."""

    dead: int = 10_000
    """The most dead letters; the oldest are dropped, and counted."""
    result_ttl: int = 0
    """After so many seconds a result expires; 0 keeps it."""


async def write_results(connection: Connection, keys: Keys, outcomes: Sequence[Outcome], ttl: int) -> None:
    """Write the results of `outcomes` and announce them, acknowledging nothing."""
    arguments: list[Any] = [keys.channel, ttl]
    for outcome in outcomes:
        if outcome.id is not None and outcome.result is not None:
            arguments += (outcome.id, outcome.result)
    if len(arguments) > 2:
        await connection.run("write", [keys.output], arguments)


def _section(outcome: Outcome) -> int:
    """Where an outcome stands among the arguments of settle.lua."""
    if outcome.dead:
        return 2
    return 0 if outcome.again is None else 1


def _settlement(keys: Keys, worker: str, outcomes: Sequence[Outcome], limits: Limits) -> list[Any]:
    """The arguments of settle.lua, for outcomes sorted by section."""
    arguments: list[Any] = [worker, keys.channel, keys.wake, limits.dead, limits.result_ttl, _COUNTS_MS, 0, 0]
    answered = again = 0
    for outcome in outcomes:
        raw = outcome.delivery.raw
        if outcome.dead:
            answer = ("", "", "") if outcome.result is None else ("1", outcome.id, outcome.result)
            arguments += (raw, dead_letter(outcome, worker), *answer)
        elif outcome.again is not None:
            arguments += (raw, new_token(), int(outcome.again * 1000))
            again += 1
        else:
            arguments += (raw, outcome.id, outcome.result)
            answered += 1
    arguments[6:8] = answered, again
    return arguments


def _tell(loop: asyncio.AbstractEventLoop, observer: Observer, worker: str) -> None:
    """Pass the keeper's news on to the observer, from its thread to the event loop."""
    try:
        loop.call_soon_threadsafe(observer.lease_lost, worker)
    except RuntimeError:
        pass  # the loop is closed: nobody is left to be told
