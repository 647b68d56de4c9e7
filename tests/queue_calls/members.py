"""Workers as Redis knows them: their queue is called on lines that lose replies, under leases that end at will."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import count
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Observer
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.delayed import Promoter
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.lease import Lease, LeaseKeeper
from redis_worker.broker.queue.recovery import Recoverer
from redis_worker.broker.queue.settlement import Limits
from redis_worker.broker.queue.topic import IdempotentQueue
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.priorities import PrioritiesLike, priorities_of
from redis_worker.vocabulary.task import Delivery, Outcome
from tests.support import Queue

DAY_MS = 86_400_000
LEASE = 600.0


class Line(Connection):
    """A connection that loses replies."""

    lost: str | None = None
    """The script whose next reply is lost."""

    def __init__(self, url: str) -> None:
        super().__init__(address_of(url).open(), owned=True)
        self.scripts: list[str] = []
        """All that were run."""

    async def run(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.scripts.append(name)
        reply = await super().run(name, *arguments, **options)
        if name == self.lost:
            self.lost = None
            raise Disconnected("the reply was lost")
        return reply


class Unkept(LeaseKeeper):
    """Renews nothing, so that a lease ends when the test says so."""

    def keep(self, keys: Sequence[str], lease: Lease, on_lost: Callable[[], None]) -> None: ...

    def drop(self, lease: Lease) -> None: ...


class Losses(Observer):
    """Notes the names under which a worker was presumed dead."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def lease_lost(self, worker: str) -> None:
        self.names.append(worker)


class Member:
    """A worker, as far as Redis knows it."""

    def __init__(
        self,
        url: str,
        keys: Keys,
        keeper: LeaseKeeper,
        *,
        idempotent: bool = False,
        limits: Limits | None = None,
        priorities: PrioritiesLike | None = None,
    ) -> None:
        self.keeper = keeper
        self.line = Line(url)
        self.losses = Losses()
        self.keys = keys = Keys(keys.waiting) if idempotent else keys  # messages have no results
        if priorities is not None:
            self.keys = keys = Keys(keys.waiting, keys.output, priorities_of(priorities))
        options: dict[str, Any] = {"max_deliveries": 3, "limits": limits or Limits(dead=10_000)}
        self.doorbell = Doorbell(address_of(url))
        rest = (self.doorbell, keys, keeper, self.losses)
        self.queue: AtLeastOnceQueue
        if idempotent:
            self.queue = IdempotentQueue(self.line, *rest, **options)
        else:
            self.queue = AtLeastOnceQueue(self.line, self.line, *rest, **options)

    @property
    def name(self) -> str:
        return self.queue.worker

    async def claim(self, limit: int = 100) -> list[Delivery]:
        return await self.queue.claim(limit, wait=False)

    async def lose(self, script: str, call: Awaitable[Any]) -> None:
        """Make a call that runs `script`, and never see its reply."""
        self.line.lost = script
        with pytest.raises(Disconnected):
            await call

    def recoverer(self, lease: float = LEASE) -> Recoverer:
        return Recoverer(self.line, self.keys, self.queue, self.losses, self.doorbell, lease=lease)

    async def bury(self, other: Member) -> None:
        """Let the other one's lease end, and return its tasks.

        Its thread may renew the lease between the two steps: then it lives, and both are repeated.
        """
        recoverer = self.recoverer()
        while await self.line.call("ZSCORE", other.keys.workers, other.name) is not None:
            await expire(self.line, other)
            await recoverer.sweep()


async def expire(line: Connection, member: Member) -> None:
    await line.call("ZADD", member.keys.workers, 1, member.name)


Join = Callable[..., Awaitable[Member]]


def task(number: int | str) -> bytes:
    return json.dumps({"id": str(number), "task": [number]}).encode()


def ids(raws: Iterable[bytes | Delivery]) -> list[str]:
    return [json.loads(raw.raw if isinstance(raw, Delivery) else raw)["id"] for raw in raws]


def done(delivery: Delivery, value: bytes = b"1") -> Outcome:
    return Outcome(delivery, *ids([delivery]), b'{"status":"success","result":%b}' % value)


def again(delivery: Delivery, delay: float = 0.0) -> Outcome:
    return Outcome(delivery, *ids([delivery]), None, "no", again=delay)


def dead(delivery: Delivery) -> Outcome:
    return Outcome(delivery, *ids([delivery]), b'{"status":"error","error":"no"}', "no", dead=True)


async def waiting(queue: Queue) -> list[str]:
    return ids(await queue.waiting())


async def late_pop(queue: Queue, member: Member, number: int) -> None:
    """Let a pop that the member has sent take a task: it checks no lease."""
    await queue.push(task(number))
    await queue.redis.lmove(queue.keys.waiting, queue.keys.arrived(member.name), "RIGHT", "RIGHT")


async def set_deaths(queue: Queue, raw: bytes, count: int) -> None:
    """As if so many workers had died holding the task."""
    await queue.redis.hset(queue.keys.attempts, f"d{hashlib.sha1(raw).hexdigest()}", count)


class Enough(Exception):
    """Ends a promoter."""


async def promote_all(member: Member) -> None:
    """Run a promoter until nothing is delayed: everything is due."""
    rounds = count(1)

    async def wait(_: float) -> None:
        assert next(rounds) < 100, "what is due stays delayed"
        if not await member.line.call("EXISTS", member.keys.delayed):
            raise Enough

    await promote(member, wait)


async def promote(member: Member, wait: Callable[[float], Awaitable[None]]) -> None:
    """Run a promoter until `wait`, which is called with the seconds that it would sleep, raises Enough."""
    with pytest.raises(Enough):
        await Promoter(member.line, member.keys, Sleepless(wait), Observer()).run()


class Sleepless(Doorbell):
    """A doorbell that another function waits at."""

    def __init__(self, wait: Callable[[float], Awaitable[None]]) -> None:
        self._wait = wait

    def bell(self, *_: str) -> Any:
        return _SleeplessBell(self._wait)


class _SleeplessBell(nullcontext[Any]):
    def __init__(self, wait: Callable[[float], Awaitable[None]]) -> None:
        super().__init__(self)
        self._wait = wait

    async def wait(self, seconds: float, poll: float) -> None:
        await self._wait(seconds)


async def now(redis: Redis) -> int:
    """The server's clock, in microseconds."""
    seconds, microseconds = await redis.time()
    return seconds * 1_000_000 + microseconds
