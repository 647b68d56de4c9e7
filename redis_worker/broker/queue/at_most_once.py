"""The queue with at-most-once delivery: a plain BLPOP loop, if loss is preferable to repetition."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import SPAN, Keys
from redis_worker.broker.queue.at_least_once import BLOCK
from redis_worker.broker.queue.dead_letter import dead_letter
from redis_worker.broker.queue.lease import worker_name
from redis_worker.broker.queue.pause import Pause
from redis_worker.broker.queue.refused_content import retry_hangups
from redis_worker.broker.queue.results_writer import write_results
from redis_worker.broker.queue.settlement import Limits, pieces
from redis_worker.ports import Observer, Unwritten
from redis_worker.vocabulary.errors import DamagedKey, Refused, Unacceptable
from redis_worker.vocabulary.payload import are_plain
from redis_worker.vocabulary.task import Delivery, Outcome


class _Receipt:
    """A receipt without ownership: a taken task exists nowhere else."""

    lost = False


class AtMostOnceQueue:
    """The port `Queue` over Redis without claims: tasks taken by a worker that dies are lost."""

    cut_short = False

    def __init__(
        self, ordinary: Connection, blocking: Connection, keys: Keys, observer: Observer, limits: Limits
    ) -> None:
        self._ordinary = ordinary
        self._blocking = blocking
        self._keys = keys
        self._limits = limits
        self._observer = observer
        self._pause = Pause(observer)
        self._receipt = _Receipt()
        self._by_priority: tuple[str, ...] = ()
        """The order and the turns of priorities."""
        self._turn = 0
        """The next turn: one for each task."""
        if keys.priorities is not None:
            self._by_priority = keys.priorities.order, keys.priorities.turns
            self._turn = keys.priorities.any_turn()
        self._sent: dict[int, tuple[Outcome, bytes]] = {}
        """Dead letters whose call got no reply, by the identity of their outcomes: they may be stored already."""
        self.worker = worker_name()

    async def open(self) -> None:
        """Do nothing."""

    def ring(self) -> None:
        """Do nothing: a wait for tasks ends within a second."""

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """See the port. A task pushed within a second after a pause may still be taken: BLPOP does not check it."""
        if self._by_priority:
            paused, tasks = await self._take_by_priority(limit)
        else:
            keys = [self._keys.waiting, self._keys.paused]
            paused, raws = await self._blocking.run("take", keys, [limit])
            tasks = self._deliveries(raws or [])
        self._pause.update(paused == 1)
        if self._pause.on:
            if wait:
                await self._pause.wait()
        elif not tasks and wait:
            started = asyncio.get_running_loop().time()
            popped = await self._blocking.call("BLPOP", *self._keys.lists, BLOCK, patience=BLOCK + 5.0)
            if popped is None and asyncio.get_running_loop().time() - started < BLOCK / 2:
                await asyncio.sleep(0.02)
            if popped:
                tasks = self._deliveries(popped[1:], self._keys.number_of(popped[0].decode()))
        return tasks

    async def _take_by_priority(self, limit: int) -> tuple[int, list[Delivery]]:
        keys = [self._keys.waiting, self._keys.paused, *self._keys.other_lists]
        paused, *found = await self._blocking.run("take", keys, [limit, *self._by_priority, self._turn])
        tasks = [task for number, raws in found for task in self._deliveries(raws, number)]
        self._turn += len(tasks)
        return paused, tasks

    def _deliveries(self, raws: Sequence[bytes], priority: int = 0) -> list[Delivery]:
        """Return tasks of the priority with this number; the number of a delivery has no other meaning."""
        receipt, plain, number = self._receipt, are_plain(raws), priority * SPAN
        return [Delivery(raw, receipt, 0, 0, plain, False, number) for raw in raws]

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:  # noqa: ARG002 - the port's signature
        """Return nothing: a task is lost with its reply."""
        return []

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See the port. Results and dead letters are written by two calls, since no claim ties them together."""
        unwritten: list[tuple[DamagedKey | Unacceptable, Sequence[Outcome]]] = []
        for piece, size in pieces(outcomes):
            try:
                await self._write(piece, size)
            except Unacceptable as error:
                unwritten.append((error, piece))
            except DamagedKey as damage:  # for the dead letters; the results are written
                self._observer.damaged(damage)
                unwritten.append((damage, [outcome for outcome in piece if outcome.dead]))
        if unwritten:
            raise Unwritten(unwritten, [])
        return []

    async def _write(self, outcomes: Sequence[Outcome], size: int) -> None:
        connection, keys, limits, count = self._ordinary, self._keys, self._limits, len(outcomes)
        await retry_hangups(
            connection, lambda: write_results(connection, keys, outcomes, limits.lifetimes), size, count
        )
        dead = [outcome for outcome in outcomes if outcome.dead]
        if not dead:
            return
        try:
            await self._bury(dead)
        except Unacceptable:
            if count > 1:
                raise
            await self._bury(dead, cut=True)

    async def _bury(self, dead: Sequence[Outcome], *, cut: bool = False) -> None:
        before = [self._sent[id(outcome)][1] for outcome in dead if id(outcome) in self._sent]
        new = [outcome for outcome in dead if id(outcome) not in self._sent]
        priority_of = self._keys.priority_of
        letters = [
            dead_letter(outcome, self.worker, cut=cut, priority=priority_of(outcome.delivery.number)) for outcome in new
        ]
        self._sent |= {id(outcome): (outcome, letter) for outcome, letter in zip(new, letters, strict=True)}
        connection, keys, limit = self._ordinary, [self._keys.dead, self._keys.dropped], self._limits.dead
        repeated = len(before)
        every = before + letters

        async def store() -> None:
            nonlocal repeated
            known, repeated = repeated, len(every)  # a further call repeats this one
            await connection.run("bury", keys, [limit, known, *every])

        try:
            await retry_hangups(connection, store, sum(map(len, every)), len(every))
        except Refused:
            self._forget(dead)
            raise
        self._forget(dead)

    def _forget(self, dead: Sequence[Outcome]) -> None:
        for outcome in dead:
            self._sent.pop(id(outcome), None)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        for queue, some in self._keys.by_list(deliveries).items():
            await self._ordinary.call("LPUSH", queue, *(d.raw for d in reversed(some)))

    async def close(self) -> None:
        """Do nothing."""
