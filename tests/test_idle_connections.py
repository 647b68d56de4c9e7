"""Connections that a server, or a proxy, has closed while they were idle: no call fails of it, and none is doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from redis_worker import Disconnected, Publisher, SyncPublisher, SyncTaskClient, TaskClient, start_worker_pool
from redis_worker.broker.client.delayed_tasks import DelayedTasks
from redis_worker.broker.operator.control import QueueControl
from redis_worker.broker.operator.dead_letters import DeadLetters
from redis_worker.broker.operator.status import StatusReader
from redis_worker.embedded import EmbeddedServer
from tests.idle_proxy import IdleProxy
from tests.support import Queue, Topic, ended_in_time, wait_until
from tests.tls import make_certificates


@pytest.fixture(scope="session")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture(scope="module")
def impatient() -> Iterator[EmbeddedServer]:
    """A server that closes what is idle for a second."""
    with EmbeddedServer(options=("--timeout", "1")) as running:
        yield running


async def none_is_left(redis: Redis) -> bool:
    """Whether the server has closed all connections, but for the one that asks."""
    return len(await redis.client_list()) == 1


def wait_for_the_end_of_all(url: str) -> None:
    """Block until the server has closed all connections that it may, but for the one that asks."""
    with SyncRedis.from_url(url) as redis:
        assert ended_in_time(lambda: len(redis.client_list(_type="normal")) == 1)


@pytest.mark.parametrize("blocked", [False, True], ids=["the loop turns meanwhile", "the loop is blocked meanwhile"])
async def test_a_server_that_closes_idle_connections(impatient: EmbeddedServer, blocked: bool) -> None:
    """Every call follows an end that an event loop has heard of, or has not heard of: both did raise Disconnected."""
    url = impatient.url
    async with (
        TaskClient(url, "idle:in", "idle:out") as client,
        Publisher(url) as publisher,
        StatusReader(url) as reader,
        QueueControl(url, "idle:in") as control,
        DeadLetters(url, "idle:in") as letters,
        Redis.from_url(url) as given,
        TaskClient(given, "idle:in", "idle:out") as guest,
    ):
        await given.flushall()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: client.submit(1),
            lambda: client.submit_many([1, 2]),
            lambda: client.submit(1, delay=600),
            lambda: client.delete(["x"]),
            lambda: guest.submit(1),
            lambda: publisher.publish("idle", 1),
            reader.read,
            control.count,
            letters.count,
        ]
        for _ in range(3):
            for call in calls:
                await call()
            if blocked:
                wait_for_the_end_of_all(url)
            else:
                async with Redis.from_url(url) as redis:
                    await wait_until(lambda: none_is_left(redis))
        assert await client.push_raw([b"end"]) is None
        assert await control.count() == 3 * 4 + 1


def test_clients_without_a_loop_and_a_server_that_closes_idle_connections(impatient: EmbeddedServer) -> None:
    with SyncTaskClient(impatient.url, "lone:in", "lone:out") as client, SyncPublisher(impatient.url) as publisher:
        for number in range(1, 4):
            client.submit(number)
            publisher.publish("lone", number)
            with pytest.raises(TimeoutError):
                client.result("never", 0.01)
            wait_for_the_end_of_all(impatient.url)


async def test_a_proxy_that_closes_idle_connections(server: EmbeddedServer, queue: Queue, topic: Topic) -> None:
    """A pool goes on through the cuts; nothing is lost, nothing doubled, and no call of a client fails."""
    async with IdleProxy(server.port) as proxy:
        keys = queue.keys
        pool = asyncio.create_task(
            start_worker_pool(proxy.url, keys.waiting, keys.output, lambda task: [task], lambda list: list[0])
        )
        async with (
            TaskClient(proxy.url, queue.keys.waiting, queue.keys.output) as client,
            Publisher(proxy.url) as publisher,
            DelayedTasks(proxy.url, topic.keys.waiting) as delayed,
        ):
            for number in range(20):
                assert await client.run(number, 60) == number
                await client.submit(number, f"t{number}")
                await publisher.publish(topic.name, number, delay=600, id=f"m{number}")
                assert await delayed.here.count() == number + 1
                await proxy.cut()
            results = {result.id: result.value async for result in client.results([f"t{n}" for n in range(20)], 60)}
            assert results == {f"t{number}": number for number in range(20)}
            listening = asyncio.create_task(client.result("late", 60))
            await asyncio.sleep(0.3)
            await proxy.cut()  # who waits for a result hears of it all the same
            await client.submit("x", "late")
            assert await listening == "x"
        pool.cancel()
        await asyncio.wait({pool})
    assert len(await topic.delayed()) == 20


@pytest.mark.parametrize("turns", [0, 1, 20], ids=["at once", "after a turn of the loop", "after many"])
async def test_connections_with_tls(server: EmbeddedServer, tmp_path: Path, turns: int) -> None:
    """What TLS says beside the data is no end, and its farewell is one."""
    certificates = make_certificates(tmp_path, "127.0.0.1")
    async with IdleProxy(server.port, certificates.context()) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={certificates.authority}"
        async with TaskClient(url, "tls:in", "tls:out") as client, QueueControl(server.url, "tls:in") as control:
            for number in range(10):
                await client.submit(number)
                await client.submit(number)
                assert proxy.connections == number + 1  # and none was replaced for nothing
                await proxy.cut()
                for _ in range(turns):
                    await asyncio.sleep(0)
            assert await control.purge() == 20


@pytest.mark.parametrize("given", [False, True], ids=["by a URL", "by a client, which tries again by itself"])
async def test_what_was_sent_is_not_sent_again(server: EmbeddedServer, queue: Queue, given: bool) -> None:
    """A connection that ends before the reply: the call raises, and what it pushed is there once."""
    async with (
        IdleProxy(server.port) as proxy,
        Redis.from_url(proxy.url) as theirs,
        TaskClient(theirs if given else proxy.url, queue.keys.waiting, queue.keys.output) as client,
    ):
        for number in range(3):
            await client.submit(number)
            proxy.answering = False
            call = asyncio.create_task(client.submit(number))
            await _length(queue, 2 * number + 2)
            await proxy.cut()
            with pytest.raises(Disconnected):
                await call
            proxy.answering = True
            assert len(await queue.waiting()) == 2 * number + 2


async def _length(queue: Queue, length: int) -> None:
    async def is_so() -> bool:
        return len(await queue.waiting()) == length

    await wait_until(is_so)
