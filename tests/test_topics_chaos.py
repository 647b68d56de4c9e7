"""Ten topics, ten thousand messages, three workers of which one is killed every second."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter

import pytest
from redis.asyncio import Redis

from redis_worker import Publisher
from redis_worker.broker.keys import Keys, topic_list
from redis_worker.embedded import EmbeddedServer
from tests.support import ROOT, held_in, rounds_until, wait_until
from tests.topic_worker import TOPICS, is_idempotent

QUEUES = [Keys(topic_list(topic)) for topic in TOPICS]


class Process:
    """A process of tests/topic_worker.py."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.topic_worker", url]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)

    async def stopped(self) -> int:
        """Its exit code, when it has been told to stop."""
        assert self.process.stdout is not None
        await asyncio.to_thread(self.process.stdout.readline)  # it listens to signals now
        self.process.send_signal(signal.SIGTERM)
        await wait_until(lambda: self.process.poll() is not None, "the worker to end")
        return self.process.returncode

    async def kill(self, redis: Redis) -> set[str]:
        """Kill it; the ids of what it was holding."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)
        held = await _held(redis, f"*-{self.process.pid}-*")
        self.end()
        return held

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _ids(raws: list[bytes]) -> list[str]:
    return [json.loads(raw)["id"] for raw in raws]


async def _held(redis: Redis, workers: str) -> set[str]:
    """The ids of what workers of such names have in flight."""
    held: set[str] = set()
    async for key in redis.scan_iter(f"{{mq:*}}:inflight:{workers}", count=1000):
        held.update(_ids(await held_in(redis, key)))
    return held


async def _dead(redis: Redis) -> list[str]:
    return [id for keys in QUEUES for id in _ids(await redis.lrange(keys.dead, 0, -1))]


async def _left(redis: Redis) -> int:
    """How many messages are waiting, put off or in flight."""
    pipeline = redis.pipeline()
    for keys in QUEUES:
        pipeline.llen(keys.waiting)
        pipeline.zcard(keys.delayed)
    return sum(await pipeline.execute()) + len(await _held(redis, "*"))


async def _none_left(redis: Redis) -> bool:
    return not await _left(redis)


@pytest.mark.long  # test_gateway.py kills a worker of topics too
async def test_nothing_is_lost_and_the_idempotent_are_completed_once(server: EmbeddedServer, redis: Redis) -> None:
    published: dict[str, str] = {}
    held_by_the_dead: set[str] = set()
    workers = [Process(server.url) for _ in range(3)]
    try:
        async with Publisher(server.url) as publisher:
            for topic in TOPICS:
                published |= dict.fromkeys(await publisher.publish_many(topic, range(1000)), topic)
            # Of some idempotent messages there are two, in the list at the same time.
            twice = random.sample([id for id, topic in published.items() if is_idempotent(topic)], 200)
            for id in twice:
                await publisher.publish(published[id], "again", id=id)
        kills = 0
        async for _ in rounds_until(lambda: _none_left(redis), "all messages to be handled or dead"):
            await asyncio.sleep(1.0)
            if kills < 8:
                victim = kills % 3
                held_by_the_dead |= await workers[victim].kill(redis)
                workers[victim] = Process(server.url)
                kills += 1
        handled = {id.decode(): int(count) for id, count in (await redis.hgetall("handled")).items()}
        dead = Counter(await _dead(redis))
        assert handled.keys() | dead.keys() == published.keys()
        # More than once, or both, only by the death of a worker that was just about to say so.
        repeated = {id for id, count in handled.items() if count + dead[id] > 1}
        assert repeated <= held_by_the_dead | set(twice)
        for id in twice:
            assert handled.get(id, 0) <= 1 or id in held_by_the_dead
        marked = await _marked(redis)
        idempotent = {id for id in handled if is_idempotent(published[id])}
        assert marked == dict.fromkeys(marked.keys() & idempotent, 1)
        # Handled and not completed: its worker died in between, and then it has failed until it was dead.
        assert idempotent - marked.keys() <= held_by_the_dead & dead.keys()
        assert kills >= 3
        assert [await worker.stopped() for worker in workers] == [0, 0, 0]
    finally:
        for worker in workers:
            worker.end()


async def _marked(redis: Redis) -> Counter[str]:
    """The ids that are marked as completed."""
    marked: Counter[str] = Counter()
    for keys in QUEUES:
        marked.update(id.decode() for id in await redis.zrange(keys.done, 0, -1))
    return marked
