"""Each derived key in turn is absent, of another type or has malformed members, under load: nothing is lost by it.

Which cases are tried is drawn with a seed: DAMAGED_KEYS_SEED=7 repeats a draw, DAMAGED_KEYS_CASES=all tries all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_worker import Message, Refused, Reject, Retry, TopicWorker, WorkerPool
from redis_worker.broker.cron import CronStore
from redis_worker.broker.keys import CronKeys, Keys, cron_stem
from redis_worker.broker.operator.doctor.examination import examine
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings
from redis_worker.embedded import EmbeddedServer
from tests.support import Queue, Topic, hold, wait_until

SEED = int(os.environ.get("DAMAGED_KEYS_SEED", "1"))
ALL = os.environ.get("DAMAGED_KEYS_CASES") == "all"
KINDS = ("absent", "of another type", "malformed")
TYPES = {
    "string": ("SET", "x"),
    "list": ("RPUSH", "x"),
    "set": ("SADD", "x"),
    "hash": ("HSET", "x", "y"),
    "zset": ("ZADD", "1", "x"),
}
NAMES = [b"\xff\xfe", b"", b"a\nb", b"x" * 1000]
# What stands in a key that no worker has written: for sorted sets members, for hashes fields and values.
MALFORMED: dict[str, list[Any]] = {
    "workers": NAMES,
    "retired": NAMES,
    "claimants": NAMES,
    "presence": [(b"\xff", b"\xff"), (b"a", b"{"), (b"b", b'{"published_at":"x","tasks":7}'), (b"c", b"[]")],
    "attempts": [(b"d\xff", b"\xff"), (b"dx", b"many"), (b"", b"-1"), (b"rx", b"9" * 40)],
    "delayed": [b"no token", b"", b"\xff\xfe"],
    "dead": [b"", b"\xff", b"{}", b'{"id":[],"raw":7,"reason":{},"attempts":"x","at":1e300,"worker":1}'],
    "dropped": [b"many"],
    "done": [b"\xff", b""],
    "begun": [(b"\xff", b"\xff"), (b"x", b"no newline"), (b"y", b"")],
}
# The ids that an idempotent topic remembers may be anything: of these the doctor says nothing.
UNSAID = {"done"}
# What an idempotent topic needs before it can handle anything.
NEEDED = {"workers", "done", "begun", "delayed"}


class Case(NamedTuple):
    """One kind of damage to one key."""

    key: str
    kind: str
    before: bool
    """Whether it is there before the start."""

    def __str__(self) -> str:
        return f"{self.key} {self.kind} {'before the start' if self.before else 'at run time'}"


def cases(keys: list[str], most: int) -> list[Case]:
    """`most` of all cases, each key with each kind at least once."""
    every = [Case(key, kind, before) for key in keys for kind in KINDS for before in (True, False)]
    if ALL:
        return every
    draw = random.Random(SEED)
    pairs = [Case(key, kind, draw.random() < 0.4) for key in keys for kind in KINDS]
    return draw.sample(pairs, min(most, len(pairs)))


# In one step: workers change the key, and delete it with its last member.
_MOVE_AWAY = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
if #ARGV > 0 then redis.call(unpack(ARGV)) end
"""


class Damage:
    """Damages a key, and mends it as an operator would: what was moved away comes back."""

    def __init__(self, redis: Redis, key: str, case: Case, expected: str) -> None:
        self.redis, self.key, self.case, self.expected = redis, key, case, expected
        self.aside = f"{key}.aside"

    async def do(self) -> None:
        if self.case.kind == "malformed":
            await self.add(MALFORMED[self.case.key])
            return
        command: list[Any] = []
        if self.case.kind == "of another type":
            found = random.Random(f"{SEED}{self.case}").choice([kind for kind in TYPES if kind != self.expected])
            name, *arguments = TYPES[found]
            command = [name, self.key, *arguments]
        await self.redis.eval(_MOVE_AWAY, 2, self.key, self.aside, *command)

    async def add(self, members: list[Any]) -> None:
        if self.expected == "zset":
            score = 4e12 if self.case.key == "delayed" else 5  # what is due is taken for a task as it is
            await self.redis.zadd(self.key, dict.fromkeys(members, score))
        elif self.expected == "hash":
            await self.redis.hset(self.key, mapping=dict(members))
        elif self.expected == "list":
            await self.redis.rpush(self.key, *members)
        else:
            await self.redis.set(self.key, members[0])

    async def mend(self) -> None:
        if self.case.kind == "malformed":
            await self._remove(MALFORMED[self.case.key])
            return
        if self.case.kind == "of another type":
            await self.redis.delete(self.key)
        if self.case.key in ("delayed", "dead", "attempts", "done", "begun"):  # the others heal by themselves
            await self._restore()

    async def _restore(self) -> None:
        """Bring back what was moved away, beside what has come since."""
        if self.expected == "zset":
            await self.redis.zunionstore(self.key, [self.key, self.aside], aggregate="MAX")
        elif self.expected == "list":
            while await self.redis.lmove(self.aside, self.key, "RIGHT", "LEFT"):
                pass
        elif before := await self.redis.hgetall(self.aside):
            await self.redis.hset(self.key, mapping=before | await self.redis.hgetall(self.key))

    async def _remove(self, members: list[Any]) -> None:
        for member in members:
            if self.expected == "zset":
                await self.redis.zrem(self.key, member)
            elif self.expected == "hash":
                await self.redis.hdel(self.key, member[0])
            elif self.expected == "list":
                await self.redis.lrem(self.key, 0, member)
        if self.expected == "string":
            await self.redis.delete(self.key)


class Work:
    """What tasks and messages ask for, and how often each was tried."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    async def do(self, what: str, id: str) -> str:
        self.calls[id] += 1
        await asyncio.sleep(0.01)
        if what == "reject":
            raise Reject("never")
        if what == "fail":
            raise ValueError("out of cheese")
        if what == "again" and self.calls[id] < 3:
            raise Retry("please", delay=0.05)
        self.done[id] += 1
        return id

    async def task(self, arguments: list[str]) -> str:
        return await self.do(*arguments)

    async def message(self, message: Message) -> None:
        await self.do(message.data, message.id)


class Load:
    """Pushes tasks of all sorts, and leaves some with a worker that died."""

    def __init__(self, queue: Queue, work: Work, payload: Callable[[str, str], dict[str, Any]]) -> None:
        self.queue, self.work, self.payload = queue, work, payload
        self.ids: list[str] = []

    async def is_done(self, id: str) -> bool:
        raise NotImplementedError

    async def places(self) -> Counter[str]:
        """In how many ways each id has ended."""
        raise NotImplementedError

    async def is_accounted_for(self) -> bool:
        """Whether each id has ended, once, and nothing is left."""
        keys, redis = self.queue.keys, self.queue.redis
        if await redis.llen(keys.waiting) + await redis.zcard(keys.delayed) + len(await self.queue.inflight()):
            return False
        return await self.places() == Counter(self.ids)

    async def account(self) -> object:
        """What is not as it should be, for whoever has to find out why."""
        places = await self.places()
        return {id: places[id] for id in {*self.ids, *places} if places[id] != 1}, await self.queue.inflight()

    def new(self, what: str) -> dict[str, Any]:
        id = f"{what}{len(self.ids)}"
        self.ids.append(id)
        return self.payload(what, id)

    async def push(self, rounds: int, *what: str) -> None:
        for _ in range(rounds):
            await self.queue.push(*(self.new(each) for each in what or ("ok", "again", "reject", "fail", "ok")))
            await asyncio.sleep(0.01)

    async def leave(self) -> None:
        """Some tasks with a worker that was killed a second ago."""
        keys, redis, ends = self.queue.keys, self.queue.redis, time.time() * 1000 + 1000
        await redis.zadd(keys.workers, {"killed": ends})
        with contextlib.suppress(ResponseError):  # it may be the key that is damaged
            await redis.zadd(keys.claimants, {"killed": 2000})
        await hold(redis, keys, "killed", *(orjson.dumps(self.new("ok")) for _ in range(3)))


async def survives(server: EmbeddedServer, case: Case, queue: Queue, load: Load, begin: Callable[[], Any]) -> None:
    """Go through `case`: what does not need the key goes on, the doctor and a log line name it, nothing is lost."""
    keys = queue.keys
    key = getattr(keys, case.key)
    damage = Damage(queue.redis, key, case, keys.types[key])
    if case.before:
        await damage.do()
        await doctor_names(server, case, queue, key)
    worker = begin()
    try:
        running = await started(worker)
    except Refused as refused:  # a pool needs its lease
        if (case.key, case.kind, key in str(refused)) != ("workers", "of another type", True):
            raise
        await damage.mend()
        worker = begin()
        running = await started(worker)
    try:
        if case.key != "workers" or not case.before:
            await load.leave()
        await load.push(4)
        if not case.before:
            await damage.do()
        await load.push(4)
        if case.kind != "of another type" or case.key not in NEEDED:
            await load.push(1, "ok")
            before = load.ids[-1]
            await wait_until(lambda: load.is_done(before), f"{case}: what does not need the key to go on")
        if not case.before and (case.kind == "of another type" or case.key not in ("dead", "dropped")):
            await doctor_names(server, case, queue, key)  # what is malformed there is dropped, or begun anew
        await asyncio.sleep(1.5)
        await damage.mend()
        await load.push(2)
        await wait_until(load.is_accounted_for, f"{case}: everything to be accounted for")
    except BaseException:
        print(case, await load.account())
        raise
    finally:
        worker.stop()
        await running
    assert await load.is_accounted_for(), str(case)


async def doctor_names(server: EmbeddedServer, case: Case, queue: Queue, key: str) -> None:
    if case.kind != "absent" and case.key not in UNSAID:
        found = [
            finding for finding in (await examine(server.url, [queue.keys.waiting])).findings if key in finding.what
        ]
        assert {finding.level for finding in found} in ({"fault"}, {"warning"}), f"{case}: the doctor says {found}"


async def started(worker: Any) -> asyncio.Task[None]:
    running = asyncio.create_task(worker.run())
    ready = asyncio.create_task(worker.wait_until_started())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if running.done():
        running.result()
    return running


class Tasks(Load):
    """Tasks of a pool."""

    def __init__(self, queue: Queue, work: Work) -> None:
        super().__init__(queue, work, lambda what, id: {"id": id, "task": [what, id]})

    async def is_done(self, id: str) -> bool:
        return await self.queue.result(id) is not None

    async def places(self) -> Counter[str]:
        """How often each id is answered."""
        return Counter((await self.queue.results()).keys())


class Messages(Load):
    """Messages of a topic."""

    def __init__(self, topic: Topic, work: Work) -> None:
        super().__init__(topic, work, lambda what, id: {"id": id, "data": what})

    async def is_done(self, id: str) -> bool:
        return self.work.done[id] > 0

    async def places(self) -> Counter[str]:
        """In how many ways each id has ended: handled, or dead."""
        dead = [orjson.loads(raw) for raw in await self.queue.redis.lrange(self.queue.keys.dead, 0, -1)]
        return Counter(set(self.work.done)) + Counter({letter["id"] for letter in dead})


async def go_through(tried: list[Case], each: Callable[[Case], Any], caplog: pytest.LogCaptureFixture) -> None:
    turns = asyncio.Semaphore(8)

    async def one(case: Case) -> None:
        async with turns:
            await each(case)

    with caplog.at_level(logging.WARNING):
        results = await asyncio.gather(*map(one, tried), return_exceptions=True)
    outcomes = zip(tried, results, strict=True)
    failed = [(str(case), type(result), str(result)) for case, result in outcomes if result is not None]
    print(f"DAMAGED_KEYS_SEED={SEED}")
    assert not failed, failed


def named_once(caplog: pytest.LogCaptureFixture, case: Case, key: str) -> None:
    lines = [record.message for record in caplog.records if f"{key!r} holds a" in record.message]
    assert len(lines) == 1, (str(case), lines)


async def test_pools(server: EmbeddedServer, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """`survives` checks each case: what is damaged waits, all else is done, and once mended, everything is."""
    keys = ["workers", "retired", "claimants", "presence", "attempts", "delayed", "dead", "dropped"]

    async def each(case: Case) -> None:
        queue, work = Queue(redis, Keys(f"pool:{secrets.token_hex(3)}", f"out:{secrets.token_hex(3)}")), Work()
        names = (server.url, queue.keys.waiting, queue.keys.output)
        load = Tasks(queue, work)
        options: dict[str, Any] = {"lease": 2.0, "retries": 3, "retry_backoff": 0.05, "dead_limit": 5}
        await survives(server, case, queue, load, lambda: WorkerPool(*names, "list", work.task, 4, **options))
        if case.kind == "of another type" and not (case.key == "workers" and case.before):
            named_once(caplog, case, getattr(queue.keys, case.key))

    await go_through(cases(keys, 24), each, caplog)
    await redis.flushall()  # malformed members stay


@pytest.mark.parametrize("idempotent", [False, True])
async def test_topics(server: EmbeddedServer, redis: Redis, caplog: pytest.LogCaptureFixture, idempotent: bool) -> None:
    keys = ["workers", "retired", "claimants", "presence", "attempts", "delayed", "dead", "dropped"]
    if idempotent:
        keys = ["workers", "claimants", "delayed", "attempts", "done", "begun"]

    async def each(case: Case) -> None:
        topic, work = Topic(redis, f"topic{secrets.token_hex(3)}"), Work()

        def begin() -> TopicWorker:
            worker = TopicWorker(server.url, lease=2)
            worker.handler(topic.name, idempotent=idempotent, retries=3, retry_backoff=0.05)(work.message)
            return worker

        await survives(server, case, topic, Messages(topic, work), begin)
        if case.kind == "of another type":
            key = getattr(topic.keys, case.key)
            lines = {record.message for record in caplog.records if f"{key!r} holds a" in record.message}
            assert lines, str(case)

    await go_through(cases(keys, 12), each, caplog)
    await redis.flushall()


CRON_MALFORMED: dict[str, list[Any]] = {
    "fired": [b"\xff", b"soon"],
    "queued": [b"\xff", b"soon"],
    "running": [b"\xff"],
    "runs": [(b"\xff", b"\xff"), (b"x", b"")],
    "record": [(b"count:success", b"many"), (b"next", b"soon"), (b"\xff", b"\xff")],
    "ended": [b"\xff", b""],
}


@pytest.mark.parametrize("kind", KINDS)
async def test_cron_jobs(server: EmbeddedServer, redis: Redis, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """A job for each key; the ones whose key is malformed or absent go on, the others wait until it is mended."""
    app, store = f"app{secrets.token_hex(3)}", CronStore(server.url, lease=2.0)
    names = list(CRON_MALFORMED)
    jobs = {
        name: CronJob(JobSettings(name, app, "* * * * * *", job="tests.cron_jobs:remember"), store)
        for name in [*names, "healthy"]
    }
    tasks = [asyncio.create_task(job.run()) for job in jobs.values()]
    keys = {name: getattr(CronKeys(cron_stem(app, name)), name) for name in names}

    async def instants() -> dict[str, int]:
        """For which instant each job ran last; by the records, for a status forgets a job that has none."""
        records = {name: CronKeys(cron_stem(app, name)).record for name in jobs}
        kept = {name: key for name, key in records.items() if await redis.type(key) == b"hash"}
        return dict.fromkeys(jobs, 0) | {name: int(await redis.hget(key, "instant") or 0) for name, key in kept.items()}

    async def all_run(*expected: str) -> None:
        before = await instants()

        async def run() -> bool:
            now = await instants()
            return all(now[name] > before[name] for name in expected)

        await wait_until(run, f"{expected} to run")

    try:
        with caplog.at_level(logging.WARNING):
            await all_run(*jobs)
            for name, key in keys.items():
                if kind == "malformed":
                    damage = Damage(redis, key, Case(name, kind, False), (await redis.type(key)).decode())
                    if damage.expected != "none":
                        await damage.add(CRON_MALFORMED[name])
                else:
                    await redis.delete(key)
                    if kind == "of another type":
                        await redis.set(key, "x")
            if kind == "of another type":
                found = {
                    finding.subject for finding in (await examine(server.url)).findings if finding.level == "fault"
                }
                assert {f"cron job {app}/{name}" for name in names} <= found
                await all_run("healthy")
                for key in keys.values():
                    await wait_until(lambda key=key: f"{key!r} holds a string" in caplog.text, "a log line")
                await redis.delete(*keys.values())
            await all_run(*jobs)
    finally:
        for job in jobs.values():
            job.stop()
        await asyncio.gather(*tasks)
        await store.close()
