"""The queue of one topic, which waits at a doorbell and may be idempotent; and the registry of known topics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints, call_on, damaged_keys, readable, strangers
from redis_worker.broker.keys import BUNDLES, TASKS, TOPICS
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.delayed import new_token
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.ports import Unwritten
from redis_worker.vocabulary.errors import DamagedKey, Unreadable
from redis_worker.vocabulary.message import is_topic
from redis_worker.vocabulary.payload import read_object
from redis_worker.vocabulary.task import Delivery, Outcome

# Delay, in ms, of a message while another one with its id is running.
_POSTPONE_MS = 500
# Interval of registering the consumed topics, in seconds: the registry may have been deleted.
_KNOWN_FOR = 60.0

_HANDLE, _DONE, _POSTPONED, _UNHELD = 0, 1, 2, 3


class TopicQueue(AtLeastOnceQueue):
    """The port `Queue` over the list of a topic: without a blocking call, and without results."""

    def __init__(self, ordinary: Connection, doorbell: Doorbell, *args: Any, **options: Any) -> None:
        super().__init__(ordinary, ordinary, doorbell, *args, **options)

    async def open(self) -> None:
        """See the port. Raises DamagedKey where the topic's list is no list."""
        await self.check()
        await super().open()

    async def check(self) -> None:
        """Raise DamagedKey where the topic's list is no list; or Disconnected or Refused."""
        for damaged in await damaged_keys(self._ordinary, {self._keys.waiting: "list"}):
            raise damaged

    async def _claim(self, limit: int, wait: bool) -> list[Delivery]:
        if wait and self._drained:
            return await self._claim_when_rung(limit)
        return await self._claim_now(self._ordinary, limit)


class IdempotentQueue(TopicQueue):
    """A topic queue that runs one message per id at a time, and after a success skips duplicates for `remember` ms."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._handled: dict[str, Delivery] = {}
        """Messages this worker is running, by id."""

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """See the port. Messages that may not run yet are delayed."""
        try:
            return await self._begin(await super().claim(limit, wait))
        except DamagedKey as error:
            if not wait:
                raise
            await self._wait_for_repair(error)
            return []

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:
        """See the port."""
        try:
            return await self._begin(await super().missing(held))
        except DamagedKey as error:
            self.damaged(error)
            return []

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See the port."""
        try:
            lost = await super().settle(outcomes)
        except Unwritten as error:
            left = {id(outcome) for _, some in error.left for outcome in some}
            self._end(outcome.delivery for outcome in outcomes if id(outcome) not in left)
            raise
        self._end(outcome.delivery for outcome in outcomes)
        return lost

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        await super().release(deliveries)
        self._end(deliveries)

    def _make_names(self) -> None:
        super()._make_names()
        keys, bundles = self._keys, self._keys.bundles(self.worker)
        self._settled_keys += [keys.done, keys.begun]
        self._begun_keys = [self._settled_keys[0], keys.done, keys.begun, keys.workers, keys.delayed, bundles]

    async def _begin(self, deliveries: list[Delivery]) -> list[Delivery]:
        arguments: list[Any] = [self.worker, self._keys.listed(""), TASKS, BUNDLES, _POSTPONE_MS]
        candidates: list[tuple[Delivery, str]] = []
        begun: list[Delivery] = []
        for delivery in deliveries:
            try:
                id, _ = read_object(delivery.raw)
            except Unreadable:
                begun.append(delivery)  # the handler reports it
                continue
            busy = self._is_handled(id)
            if not busy:
                self._handled[id] = delivery
            candidates.append((delivery, id))
            arguments += (delivery.number, id, new_token(), "1" if busy else "0")
        if not candidates:
            return begun
        try:
            verdicts = await self._end_claims("begin", self._begun_keys, arguments)
        except DamagedKey:
            self._not_begun(candidates)
            await super().release(deliveries)  # nothing can run before that key is repaired: they wait in the queue
            raise
        except BaseException:
            self._not_begun(candidates)  # they are in flight, and `missing` finds them
            raise
        for (delivery, id), verdict in zip(candidates, verdicts, strict=True):
            if verdict == _HANDLE:
                begun.append(delivery)
            else:
                self._not_begun([(delivery, id)])
            if verdict == _DONE:
                begun.append(replace(delivery, done=True))
        unheld = [delivery for (delivery, _), verdict in zip(candidates, verdicts, strict=True) if verdict == _UNHELD]
        if unheld:
            await super().release(unheld)  # not in flight: not delayed either
        return begun

    def _not_begun(self, deliveries: Iterable[tuple[Delivery, str]]) -> None:
        for delivery, id in deliveries:
            if self._handled.get(id) is delivery:
                del self._handled[id]

    def _is_handled(self, id: str) -> bool:
        handled = self._handled.get(id)
        return handled is not None and not handled.receipt.lost

    def _end(self, deliveries: Iterable[Delivery]) -> None:
        ended = {delivery.number for delivery in deliveries}
        self._handled = {
            id: delivery
            for id, delivery in self._handled.items()
            if delivery.number not in ended and not delivery.receipt.lost
        }


class Topics:
    """The registry of known topics: those published to, or consumed by a worker."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._complaints = Complaints()
        self._make_known_at = float("-inf")

    async def add(self, topics: Iterable[str]) -> None:
        """Register `topics`. Raises Disconnected, or Refused (DamagedKey if the registry holds another type)."""
        if names := list(topics):
            await call_on(self.connection, TOPICS, "set", "SADD", *names)

    async def known(self) -> tuple[set[str], list[bytes]]:
        """Return all known topics, and the names that are not UTF-8. Raises Disconnected or Refused."""
        names, undecodable = readable(await call_on(self.connection, TOPICS, "set", "SMEMBERS"))
        return set(names), undecodable

    async def look_up(self, consumed: Iterable[str], *, all_others: bool) -> set[str]:
        """For a worker: register the `consumed` topics periodically; return the known topics if `all_others`.

        A damaged registry, or a damaged name in it, causes a warning only. Raises Disconnected or Refused.
        """
        now = asyncio.get_running_loop().time()
        try:
            if now >= self._make_known_at:
                await self.add(consumed)
                self._make_known_at = now + _KNOWN_FOR
            known, undecodable = await self.known() if all_others else (set[str](), [])
        except DamagedKey as damaged:
            self._complaints.log([damaged])
            return set()
        nameless = [topic.encode() for topic in known if not is_topic(topic)]
        self._complaints.log([*strangers(TOPICS, undecodable), *strangers(TOPICS, nameless, "no topics")])
        return set(filter(is_topic, known))
