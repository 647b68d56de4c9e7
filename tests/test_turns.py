"""Calls queue for a connection: having many of them to make is no outage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import ConnectionError

from redis_worker import Publisher, TaskClient, TopicWorker, WorkerPool
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import TOPICS, topic_list
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.errors import Disconnected
from tests.support import PATIENCE, Queue, wait_until


@pytest.fixture(scope="session")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def outages(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if "Redis is away" in record.getMessage()]


async def test_a_message_for_each_of_many_topics_is_no_outage(
    server: EmbeddedServer, redis: Redis, queue: Queue, outages: Callable[[], list[str]]
) -> None:
    names = [f"{queue.keys.waiting}.{number}" for number in range(300)]
    worker = TopicWorker(server.url)
    handled: list[str] = []

    @worker.default_handler()
    async def handle(message: Any) -> None:
        handled.append(message.topic)

    for name in names:
        await worker.start_consumer(name)
    async with worker, Publisher(server.url) as publisher:
        for _ in range(3):
            handled.clear()
            await asyncio.gather(*(publisher.publish(name, 1) for name in names))
            await wait_until(lambda: len(handled) == len(names), "a message of each topic")
            assert not outages()
        assert len(await redis.client_list()) < 100
    await redis.delete(TOPICS, *map(topic_list, names))
    assert not outages()


@pytest.mark.parametrize("lasting", [True, False])
async def test_turns_are_taken_in_order(server: EmbeddedServer, redis: Redis, lasting: bool) -> None:
    """Far more calls at once than there are connections: first come, first served, and none fails."""
    connection = Connection(address_of(server.url).open(), owned=True, lasting=lasting)
    ended: list[int] = []

    async def call(number: int) -> None:
        await connection.call("BLPOP", "nothing:here", 0.05)
        ended.append(number)

    try:
        await asyncio.gather(*map(call, range(320)))
        connections = [each for each in await redis.client_list() if each["cmd"].startswith("blpop")]
    finally:
        await connection.close()
    assert len(connections) <= 32
    assert all(abs(place - number) < 64 for place, number in enumerate(ended))


def _pools(server: EmbeddedServer) -> dict[str, Any]:
    return {
        "limited": ConnectionPool.from_url(server.url, max_connections=5),
        "blocking": BlockingConnectionPool.from_url(server.url, max_connections=5, timeout=0.05),
    }


@pytest.mark.parametrize("kind", ["limited", "blocking"])
async def test_a_callers_client_with_few_connections(server: EmbeddedServer, queue: Queue, kind: str, outages) -> None:
    """Ten pools and a client on the same five connections, which the caller uses as well."""
    client = Redis.from_pool(_pools(server)[kind])
    pools = [WorkerPool(client, queue.keys.waiting, queue.keys.output, "list", "sum") for _ in range(10)]
    try:
        await asyncio.gather(*(pool.__aenter__() for pool in pools))
        async with TaskClient(client, queue.keys.waiting, queue.keys.output) as tasks:
            others = [asyncio.create_task(_use(client)) for _ in range(4)]
            answers = await asyncio.gather(*(tasks.run([n, 1], timeout=PATIENCE) for n in range(200)))
            await asyncio.gather(*others)
        assert answers == [n + 1 for n in range(200)]
    finally:
        await asyncio.gather(*(pool.__aexit__(None, None, None) for pool in pools))
        await client.aclose()
    assert not outages()


async def _use(client: Redis) -> None:
    for _ in range(10):
        with contextlib.suppress(ConnectionError):  # there is none left: the others have their share
            connection = await client.connection_pool.get_connection()
            await asyncio.sleep(0.02)
            await client.connection_pool.release(connection)


async def test_connections_that_others_keep_are_named(server: EmbeddedServer) -> None:
    client = Redis.from_pool(ConnectionPool.from_url(server.url, max_connections=1))
    kept = await client.connection_pool.get_connection()
    connection = Connection(client, owned=False)
    with pytest.raises(Disconnected, match="max_connections"):
        await connection.call("PING", patience=0.3)
    await client.connection_pool.release(kept)
    assert await connection.call("PING") == b"PONG"
    await client.aclose()


async def test_a_hundred_pools_in_one_program(server: EmbeddedServer, redis: Redis, outages) -> None:
    keys = [f"test:hundred:{number}" for number in range(100)]
    pools = [WorkerPool(server.url, f"{key}:in", f"{key}:out", "list", "sum") for key in keys]
    try:
        await asyncio.gather(*(pool.__aenter__() for pool in pools))
        for _ in range(2):
            await asyncio.gather(*(redis.rpush(f"{key}:in", '{"id":1,"task":[1,2]}') for key in keys))
            await wait_until(lambda: all(pool.counters.processed for pool in pools))
    finally:
        await asyncio.gather(*(pool.__aexit__(None, None, None) for pool in pools))
        await redis.flushall()
    assert not outages()
