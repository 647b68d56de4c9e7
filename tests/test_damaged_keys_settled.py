"""A derived key of another type: what needs it waits in flight, all else goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Message, Retry, TopicWorker, WorkerPool, processor
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys, topic_list
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.lease import LeaseKeeper
from redis_worker.broker.queue.settlement import Limits
from redis_worker.embedded import EmbeddedServer
from redis_worker.ports import Observer
from tests.support import PATIENCE, Queue, WorkerProcess, wait_until


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@processor(execution="inline")
def moody(arguments: list[Any]) -> Any:
    if arguments[0] == "retry" and arguments[1]:
        arguments[1] = False
        raise Retry(delay=0.01)
    if arguments[0] == "fail":
        raise ValueError("no")
    return arguments[0]


class OnceMoody:
    """Asks for a retry once for each task."""

    def __init__(self) -> None:
        self.tries: Counter[int] = Counter()

    async def __call__(self, arguments: list[Any]) -> Any:
        what, number = arguments
        self.tries[number] += 1
        if what == "fail":
            raise ValueError("no")
        if what == "retry" and self.tries[number] == 1:
            raise Retry(delay=0.01)
        return what


COUNT = 300

# KEYS 1 a key, 2 where it is kept meanwhile; ARGV 1 the command that makes it something else.
_DAMAGE = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
redis.call(ARGV[1], KEYS[1], 'damage')
"""
_MEND = """
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end
"""


@pytest.mark.parametrize("name", ["attempts", "delayed", "dead", "dropped", "presence", "retired", "workers"])
async def test_a_key_that_is_damaged_under_load(
    server: EmbeddedServer, redis: Redis, queue: Queue, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    key = getattr(queue.keys, name)
    names = (queue.keys.waiting, queue.keys.output, "list")
    work = OnceMoody()
    pool = WorkerPool(server.url, *names, work, 20, retries=1, retry_backoff=0.01, dead_limit=10)
    kinds = ["ok", "retry", "fail"]
    caplog.set_level(logging.ERROR, "redis_worker")
    async with pool:
        for number in range(COUNT):
            await queue.push({"id": number, "task": [kinds[number % 3], number]})
            if number == COUNT // 3:
                await redis.eval(_DAMAGE, 2, key, f"{key}:away", "RPUSH" if name == "dropped" else "SET")
        if name == "workers":
            await wait_until(lambda: f"the key '{key}' holds a string" in caplog.text, "a log line")
        else:
            # What needs no damaged key is answered meanwhile.
            ordinary = [str(number) for number in range(0, COUNT, 3)]
            await wait_until(lambda: _all_there(redis, queue.keys.output, ordinary))
            await wait_until(lambda: f"the key '{key}' holds a " in caplog.text or name in ("retired", "presence"))
        assert await redis.type(key) == (b"list" if name == "dropped" else b"string")
        await redis.eval(_MEND, 2, key, f"{key}:away")
        await wait_until(lambda: queue.answered(COUNT), "all answers")
        assert caplog.text.count(f"the key '{key}' holds a ") <= 1
    failed = {str(number) for number in range(COUNT) if number % 3 == 2}
    results = await queue.results()
    assert {id for id, result in results.items() if result["status"] == "error"} == failed
    letters, dropped = await queue.dead(), int(await redis.get(queue.keys.dropped) or 0)
    assert len(letters) + dropped == len(failed)
    assert await queue.inflight() == []
    assert pool.counters.refused == 0 or name == "workers"
    await redis.delete(queue.keys.dropped, queue.keys.delayed, queue.keys.attempts)


async def _all_there(redis: Redis, output: str, ids: list[str]) -> bool:
    return None not in await redis.hmget(output, ids)


async def test_claiming_pauses_when_too_much_waits(
    server: EmbeddedServer, redis: Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_worker.engine.settler._FULL", 50)
    await redis.set(queue.keys.dead, "damage")
    await redis.rpush(queue.keys.waiting, *(f"no JSON {n}" for n in range(1000)))
    names = (queue.keys.waiting, queue.keys.output, "list")
    pool = WorkerPool(server.url, *names, moody, 1)
    # It is looked for at the start, too; here it is damaged later on.
    await redis.delete(queue.keys.dead)
    await redis.set(queue.keys.paused, 1)
    async with pool:
        await redis.set(queue.keys.dead, "damage")
        await redis.delete(queue.keys.paused)
        await wait_until(lambda: _held(pool) >= 50)
        await asyncio.sleep(0.3)
        assert 50 <= _held(pool) < 900
        await redis.delete(queue.keys.dead)
        await wait_until(lambda: pool.counters.dead == 1000)
    assert len(await queue.dead()) == 1000


def _held(pool: WorkerPool) -> int:
    return pool.consuming()[0].in_flight


async def test_at_most_once_letters_wait_too(server: EmbeddedServer, redis: Redis, queue: Queue) -> None:
    names = (queue.keys.waiting, queue.keys.output, "list")
    async with WorkerPool(server.url, *names, moody, 1, delivery="at-most-once") as pool:
        await redis.set(queue.keys.dead, "damage")
        await queue.push(b"no JSON", *({"id": n, "task": ["ok"]} for n in range(100)))
        await wait_until(lambda: queue.answered(100))
        assert pool.counters.dead == 0
        await redis.delete(queue.keys.dead)
        await wait_until(lambda: pool.counters.dead == 1)
    assert [letter["raw"] for letter in await queue.dead()] == ["no JSON"]


async def test_a_stop_hands_back_what_could_not_be_written(server: EmbeddedServer, redis: Redis, queue: Queue) -> None:
    names = (queue.keys.waiting, queue.keys.output, "list")
    pool = WorkerPool(server.url, *names, moody, 1, shutdown_timeout=10 * PATIENCE)
    async with pool:
        await redis.set(queue.keys.dead, "damage")
        await queue.push(b"no JSON")
        await wait_until(lambda: _held(pool) == 1)
        await asyncio.sleep(0.1)
    assert await queue.waiting() == [b"no JSON"]
    await redis.delete(queue.keys.dead)


async def test_a_death_is_charged_when_it_can_be(server: EmbeddedServer, redis: Redis, queue: Queue) -> None:
    """The tasks of a dead worker stay where they are as long as their death cannot be counted."""
    await queue.push({"id": 1, "task": ["kill"]})
    await redis.set(queue.keys.attempts, "damage")
    options = ("--lease", "2", "--max-deliveries", "2")
    first = WorkerProcess(server.url, queue.keys, *options, processor="tests.processors:killer")
    try:
        assert await first.ended() == -signal.SIGKILL
        names = (queue.keys.waiting, queue.keys.output, "list")
        async with WorkerPool(server.url, *names, moody, 1, lease=2, max_deliveries=1):
            await queue.push({"id": 2, "task": ["ok"]})
            await wait_until(lambda: queue.answered(1))
            await asyncio.sleep(4)
            assert len(await queue.inflight()) == 1
            assert await redis.get(queue.keys.attempts) == b"damage"
            await redis.delete(queue.keys.attempts)
            await wait_until(lambda: queue.answered(2))
        assert "given up: 1 worker died" in (await queue.result(1) or {})["error"]
    finally:
        first.close()


async def test_a_task_that_is_found_again_keeps_its_counts(server: EmbeddedServer, queue: Queue) -> None:
    """Where the reply of its claim was lost, a condemned task was run once more, and retries began anew."""
    address = address_of(server.url)
    ordinary, blocking = (Connection(address.open(), owned=True) for _ in range(2))
    keeper = LeaseKeeper(address, 6)
    broker = AtLeastOnceQueue(
        ordinary,
        blocking,
        Doorbell(address),
        queue.keys,
        keeper,
        Observer(),
        max_deliveries=3,
        limits=Limits(dead=10_000),
        output_apart=False,
    )
    await broker.open()
    raw = b'{"id":1,"task":[1]}'
    digest = await queue.redis.eval("return redis.sha1hex(ARGV[1])", 0, raw)
    await queue.redis.hset(queue.keys.attempts, mapping={b"d" + digest: 3, b"r" + digest: 2})
    await queue.push(raw, b"another")
    claimed = await broker.claim(10, wait=False)
    found = await broker.missing([])
    assert (
        [(it.raw, it.deaths, it.retries) for it in found]
        == [(raw, 3, 2), (b"another", 0, 0)]
        == [(it.raw, it.deaths, it.retries) for it in claimed]
    )
    assert [it.raw for it in await broker.missing(found[:1])] == [b"another"]
    await queue.redis.delete(queue.keys.attempts)
    assert [(it.raw, it.deaths) for it in await broker.missing([])] == [(raw, 0), (b"another", 0)]
    await broker.close()
    for connection in (ordinary, blocking):
        await connection.close()
    await keeper.close()


@pytest.fixture
async def topic(redis: Redis) -> AsyncIterator[Keys]:
    yield Keys(topic_list("damaged"))
    await redis.flushdb()


@pytest.mark.parametrize("name", ["done", "begun", "delayed", "dead", "attempts"])
async def test_an_idempotent_topic(
    server: EmbeddedServer, redis: Redis, topic: Keys, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    handled: Counter[str] = Counter()
    worker = TopicWorker(server.url)

    @worker.handler("damaged", idempotent=True, retries=1, retry_backoff=0.01)
    async def handle(message: Message) -> None:
        handled[message.id] += 1
        if message.data % 3 == 0 and message.attempt == 1:
            raise ValueError("once")
        if message.data % 3 == 1:
            raise ValueError("always")

    key = getattr(topic, name)
    async with worker:
        for number in range(120):
            body = json.dumps({"id": str(number), "data": number})
            await redis.rpush(topic.waiting, *[body] * (1 + number % 2))
            if number == 40:
                await wait_until(lambda: handled)
                await redis.eval(_DAMAGE, 2, key, f"{key}:away", "SET")
        await wait_until(lambda: f"the key '{key}' holds a string" in caplog.text, "a log line")
        assert await redis.get(key) == b"damage"
        await redis.eval(_MEND, 2, key, f"{key}:away")
        await wait_until(lambda: len(handled) == 120)
        await wait_until(lambda: _is_over(redis, topic, worker))
        assert caplog.text.count(f"the key '{key}' holds a string") == 1
    assert worker.counters.refused == 0


async def _is_over(redis: Redis, keys: Keys, worker: TopicWorker) -> bool:
    left = await redis.llen(keys.waiting) + await redis.zcard(keys.delayed)
    return not left and not worker.consuming()[0].in_flight
