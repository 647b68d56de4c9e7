"""Connections that are cut without a word: bytes are swallowed, nothing is closed. They are noticed and replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Message, Publisher, TaskClient, TopicWorker, WorkerPool
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.cron import CronStore
from redis_worker.broker.operator.supervisors import Announcer
from redis_worker.broker.queue.lease import Lease, LeaseKeeper
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings, Push
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.errors import Disconnected
from tests.proxy import Passage, Proxy
from tests.support import PATIENCE, Queue, Topic, wait_until


@pytest.fixture(scope="session")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.port).open() as proxy:
        yield proxy


@pytest.fixture
def replaced(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if "replacing it" in record.getMessage()]


async def test_the_connection_that_waits_for_topics(
    proxy: Proxy, server: EmbeddedServer, topic: Topic, replaced: Callable[[], list[str]]
) -> None:
    worker = TopicWorker(proxy.url)
    handled: list[Any] = []

    @worker.handler(topic.name)
    async def handle(message: Message) -> None:
        handled.append(message.data)

    def doorbells() -> list[Passage]:
        return [each for each in proxy.connections if b"TRACKING" in each.sent]

    async with worker, Publisher(server.url) as publisher:
        await publisher.publish(topic.name, 1)
        await wait_until(lambda: doorbells() and handled == [1])
        [doorbell] = doorbells()
        doorbell.swallows = True
        await wait_until(lambda: len(doorbells()) == 2)
        fresh = doorbells()[1]
        await wait_until(lambda: topic.keys.waiting.encode() in fresh.sent, "it to be asked to watch the topic")
        heard = fresh.sent.count(b"invalidate")
        await publisher.publish(topic.name, 2)
        await wait_until(lambda: fresh.sent.count(b"invalidate") > heard and handled == [1, 2])
    assert replaced() == ["the connection that watches queues does not answer: replacing it"]


async def test_an_idle_doorbell_is_left_in_peace(proxy: Proxy, topic: Topic, replaced: Callable[[], list[str]]) -> None:
    worker = TopicWorker(proxy.url)
    worker.handler(topic.name)(_nothing)
    async with worker:
        await wait_until(lambda: any(each.sent.count(b"PONG") >= 2 for each in proxy.connections))
        assert sum(b"TRACKING" in each.sent for each in proxy.connections) == 1
    assert not replaced()


async def _nothing(message: Any) -> None: ...


async def test_the_connection_that_hears_of_delayed_tasks(
    proxy: Proxy, server: EmbeddedServer, queue: Queue, replaced: Callable[[], list[str]]
) -> None:
    def tracking() -> list[Any]:
        return [each for each in proxy.connections if b"TRACKING" in each.sent]

    async with WorkerPool(proxy.url, queue.keys.waiting, queue.keys.output, "list", "sum"):
        await wait_until(tracking)
        tracking()[0].swallows = True
        await wait_until(lambda: len(tracking()) == 2)
    assert len(replaced()) == 1


async def test_the_connection_that_hears_of_results(
    proxy: Proxy, server: EmbeddedServer, queue: Queue, replaced: Callable[[], list[str]]
) -> None:
    def subscribed() -> list[Any]:
        return [each for each in proxy.connections if b"SUBSCRIBE" in each.sent]

    async with TaskClient(proxy.url, queue.keys.waiting, queue.keys.output) as client:
        waiting = asyncio.create_task(client.result("a", timeout=PATIENCE))
        await wait_until(subscribed)
        subscribed()[0].swallows = True
        await wait_until(lambda: len(subscribed()) == 2)
        await queue.redis.hset(queue.keys.output, "a", '{"status":"success","result":1}')
        assert await waiting == 1
    assert len(replaced()) == 1


async def test_everything_at_once(proxy: Proxy, queue: Queue) -> None:
    """All connections of a pool and its client, those in use and those that are kept: work goes on."""
    async with (
        WorkerPool(proxy.url, queue.keys.waiting, queue.keys.output, "list", "sum"),
        TaskClient(proxy.url, queue.keys.waiting, queue.keys.output) as client,
    ):
        assert await client.run([1, 2], timeout=PATIENCE) == 3
        proxy.swallow()
        await queue.push_tasks([[n, 1] for n in range(50)])  # not through the proxy
        await wait_until(lambda: queue.answered(50))


async def test_the_lease_is_kept(proxy: Proxy, queue: Queue) -> None:
    keeper = LeaseKeeper(address_of(proxy.url), 6.0)
    lost: list[bool] = []
    lease = Lease("somebody")
    connection = Connection(address_of(proxy.url).open(), owned=True)
    registries = [queue.keys.workers, queue.keys.retired, queue.keys.claimants]
    await connection.run("register", [registries[0], registries[2]], [lease.name, 6000])
    keeper.keep(registries, lease, lambda: lost.append(True))
    try:
        for _ in range(2):
            passed = len(proxy.connections)
            proxy.swallow()
            await wait_until(lambda: len(proxy.connections) > passed)  # noqa: B023
        end = await queue.redis.zscore(registries[0], lease.name)
        await wait_until(lambda: _ends_later(queue, lease, end), "it to be renewed")
        assert not lost
        assert not lease.lost
    finally:
        await keeper.close()
        await connection.close()
        await queue.redis.delete(*registries)


async def _ends_later(queue: Queue, lease: Lease, end: float) -> bool:
    return await queue.redis.zscore(queue.keys.workers, lease.name) > end


async def test_a_supervisor_is_announced_again(proxy: Proxy, redis: Redis) -> None:
    connection = Connection(address_of(proxy.url).open(), owned=True)
    announcer = Announcer(connection, lambda: {"name": "shop", "parts": []})
    task = asyncio.create_task(announcer.run())
    try:
        await wait_until(lambda: len(proxy.connections) == 1)
        await wait_until(lambda: b"announce" in proxy.connections[0].sent or b"EVALSHA" in proxy.connections[0].sent)
        proxy.swallow()
        await wait_until(lambda: len(proxy.connections) == 2 and b"EVALSHA" in proxy.connections[1].sent)
    finally:
        task.cancel()
        await asyncio.wait({task})
        await announcer.withdraw()
        await connection.close()


async def test_a_cron_job_goes_on(proxy: Proxy, redis: Redis) -> None:
    """It pushes again after its connection has become a black hole."""
    store = CronStore(proxy.url)
    job = CronJob(JobSettings("tick", "holes", "* * * * * *", push=Push("holes:in", 1)), store)
    running = asyncio.create_task(job.run())
    try:
        await wait_until(lambda: redis.llen("holes:in"))
        proxy.swallow()
        await asyncio.sleep(1.5)  # a claim is under way
        await redis.delete("holes:in")
        await wait_until(lambda: redis.llen("holes:in"))
    finally:
        job.stop()
        await running
        await store.close()
        await redis.flushall()


async def test_kept_connections_are_given_up_together(proxy: Proxy) -> None:
    """Ten kept connections in a black hole: one call waits for its time, and no other after it."""
    connection = Connection(address_of(proxy.url).open(), owned=True, lasting=True)
    try:
        await asyncio.gather(*(connection.call("BLPOP", "nothing:here", 0.1) for _ in range(10)))
        assert len(proxy.connections) == 10
        proxy.swallow()
        slow = asyncio.create_task(connection.call("PING", patience=60))
        await asyncio.sleep(0.1)
        with pytest.raises(Disconnected):
            await connection.call("PING", patience=1)
        with pytest.raises(Disconnected):
            await slow
        for _ in range(20):
            assert await connection.call("PING", patience=60) == b"PONG"
    finally:
        await connection.close()


async def test_a_silent_connection_hurries_the_one_beside(proxy: Proxy) -> None:
    address = address_of(proxy.url)
    ordinary = Connection(address.open(), owned=True, lasting=True)
    blocking = Connection(address.open(), owned=True, lasting=True, beside=ordinary)
    try:
        await ordinary.call("PING")
        await blocking.call("PING")
        proxy.swallow()
        settling = asyncio.create_task(ordinary.call("PING", patience=600))
        with pytest.raises(Disconnected):
            await blocking.call("BLPOP", "nothing:here", 1, patience=1)
        with pytest.raises(Disconnected):
            await settling
    finally:
        await blocking.close()
        await ordinary.close()
