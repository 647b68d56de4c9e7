"""The doorbell of topics: one claim for a lone message, and no message that waits for a timeout."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from redis.asyncio import Redis

from redis_worker import Message, TopicWorker
from redis_worker.broker.queue import at_least_once
from redis_worker.embedded import EmbeddedServer
from tests.proxy import Proxy
from tests.support import Topic, rounds_until, wait_until


@pytest.fixture(autouse=True)
def _no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait at the doorbell ends by a ring, or not at all: a timeout would hide a ring that is lost."""
    monkeypatch.setattr(at_least_once, "_WAIT", 3600.0)


class Commands:
    """The commands that a server has got."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def claims(self, topic: Topic) -> int:
        """Return how many claims there were: no other script takes this key."""
        return sum(command.startswith("EVALSHA") and topic.keys.paused in command for command in self.seen)

    def looks(self, topic: Topic) -> int:
        """Return how often the doorbell has read the topic's list."""
        return sum(command.startswith("EXISTS") and topic.keys.waiting in command for command in self.seen)


@asynccontextmanager
async def monitored(redis: Redis) -> AsyncIterator[Commands]:
    commands = Commands()
    async with redis.monitor() as monitor:

        async def listen() -> None:
            while True:
                commands.seen.append((await monitor.next_command())["command"])

        listening = asyncio.create_task(listen())
        yield commands
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


def worker_of(url: str, topic: Topic, handled: list[str], seconds: float = 0, **options: object) -> TopicWorker:
    """Return a worker that takes so many seconds for a message."""
    worker = TopicWorker(url)

    @worker.handler(topic.name, **options)
    async def handle(message: Message) -> None:
        await asyncio.sleep(seconds)
        handled.append(message.id)

    return worker


async def push(topic: Topic, id: str) -> None:
    await topic.redis.rpush(topic.keys.waiting, json.dumps({"id": id, "data": None}))


@pytest.mark.parametrize("options", [{}, {"idempotent": True}], ids=["plain", "idempotent"])
async def test_a_lone_message_costs_one_claim(server: EmbeddedServer, topic: Topic, options: dict[str, object]) -> None:
    handled: list[str] = []
    async with monitored(topic.redis) as commands, worker_of(server.url, topic, handled, **options):
        await wait_until(lambda: commands.looks(topic), "the worker to wait")
        before = commands.claims(topic)
        for number in range(1, 11):
            looks = commands.looks(topic)
            await push(topic, f"m{number}")
            await wait_until(lambda: len(handled) == number)  # noqa: B023 - awaited here
            await wait_until(lambda: commands.looks(topic) > looks, "the worker to wait again")  # noqa: B023 - as above
        assert commands.claims(topic) - before == 10


async def test_a_message_between_a_claim_and_the_wait_is_claimed(server: EmbeddedServer, topic: Topic) -> None:
    """The claim has found nothing, and the server does not yet notify of changes."""
    handled: list[str] = []
    late: list[str] = []
    proxy = Proxy(server.port)

    async def push_late(data: bytes) -> None:
        if b"EXISTS" in data and topic.keys.waiting.encode() in data and late:
            await push(topic, late.pop())

    proxy.before = push_late
    async with proxy.open(), worker_of(proxy.url, topic, handled):
        for number in range(10):
            late.append(f"late{number}")
            await push(topic, f"early{number}")
            await wait_until(lambda: f"late{number}" in handled)  # noqa: B023 - awaited here
    assert len(handled) == 20


async def test_messages_at_any_moment_ring(server: EmbeddedServer, topic: Topic) -> None:
    handled: list[str] = []
    async with worker_of(server.url, topic, handled):
        for number in range(300):
            await push(topic, f"m{number}")
            await wait_until(lambda: len(handled) > number)  # noqa: B023 - awaited here
            await asyncio.sleep(random.choice((0, 0, random.uniform(0, 0.003))))
        assert handled == [f"m{number}" for number in range(300)]


async def test_a_message_that_another_worker_hands_back_rings(server: EmbeddedServer, topic: Topic) -> None:
    started = asyncio.Event()
    first = TopicWorker(server.url, shutdown_timeout=0)

    @first.handler(topic.name)
    async def hold(message: Message) -> None:
        started.set()
        await asyncio.Event().wait()

    handled: list[str] = []
    async with monitored(topic.redis) as commands:
        running = asyncio.create_task(first.run())
        await push(topic, "m1")
        await started.wait()
        await wait_until(lambda: commands.looks(topic), "the first worker to wait")
        looks = commands.looks(topic)
        async with worker_of(server.url, topic, handled):
            await wait_until(lambda: commands.looks(topic) > looks, "the second worker to wait")
            assert not handled
            first.stop()
            await wait_until(lambda: handled == ["m1"])
            await running


async def test_messages_with_one_chance_left_follow_one_another(server: EmbeddedServer, topic: Topic) -> None:
    """Each is claimed alone; the others stay in the list, which changes no more once the last one was pushed."""
    raws = [json.dumps({"id": f"m{number}", "data": None}) for number in range(5)]
    deaths = {f"d{hashlib.sha1(raw.encode()).hexdigest()}": 2 for raw in raws}
    await topic.redis.hset(topic.keys.attempts, mapping=deaths)
    await topic.redis.rpush(topic.keys.waiting, *raws)
    handled: list[str] = []
    async with worker_of(server.url, topic, handled, seconds=0.2):
        await wait_until(lambda: len(handled) == 5)
    assert handled == [f"m{number}" for number in range(5)]


async def test_an_idle_topic_asks_nothing(server: EmbeddedServer, topic: Topic) -> None:
    async def rests() -> bool:
        return any(end % 1 for _, end in await topic.redis.zrange(topic.keys.workers, 0, -1, withscores=True))

    async with monitored(topic.redis) as commands, worker_of(server.url, topic, []):
        await wait_until(rests, "the lease to rest")
        before = 0

        def asks_nothing() -> bool:
            seen = commands.seen[before:]  # among them are those by which the process shows that it lives
            return bool(seen) and not any(topic.name in command for command in seen)

        async for _ in rounds_until(asks_nothing, "three seconds without a command"):  # a sweep follows the last change
            before = len(commands.seen)
            await asyncio.sleep(3)
