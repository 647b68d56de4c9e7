"""Tasks in flight whose keys somebody deletes or overwrites under a living worker: every task is answered, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Message, Reject, Retry, TopicWorker, WorkerPool
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.errors import Disconnected
from tests.support import Queue, Topic, wait_until

TASKS = 200
KeyOf = Callable[[Keys, str], str]


class Work:
    """A processor that fails now and then, and counts its calls."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds
        self.calls: Counter[int] = Counter()
        self.done: Counter[int] = Counter()

    async def __call__(self, number: int) -> int:
        self.calls[number] += 1
        await asyncio.sleep(self.seconds)
        if number % 20 == 7:
            raise Reject("never")
        if number % 20 == 11 and self.calls[number] == 1:
            raise Retry("please", delay=0.01)
        self.done[number] += 1
        return number


def deliveries(number: int) -> int:
    """Return how often a task must be called."""
    return 2 if number % 20 == 11 else 1


@asynccontextmanager
async def damaged_again_and_again(queue: Queue, damage: tuple[Any, ...], key_of: KeyOf) -> AsyncIterator[Counter[str]]:
    """Do `damage`, a command, to the keys of tasks in flight of living workers, every few milliseconds.

    One that holds another type is not used again, so that six of these show all there is to see.
    """
    damages: Counter[str] = Counter()
    name, *arguments = damage
    over = False

    async def run() -> None:
        while not over and (name == "DEL" or len(damages) < 6):
            for worker in await queue.redis.zrange(queue.keys.workers, 0, -1):
                key = key_of(queue.keys, worker.decode())
                if name == "DEL" or key not in damages:
                    damages[key] += bool(await queue.redis.execute_command(name, key, *arguments))
            await asyncio.sleep(0.05)

    task = asyncio.create_task(run())
    try:
        yield damages
    finally:
        over = True  # not cancelled: a call of redis-py may swallow that, and the loop would go on for ever
        await task


@pytest.mark.parametrize(
    ("damage", "key_of"),
    [(("DEL",), Keys.inflight), (("SET", "x"), Keys.inflight), (("SET", "x"), Keys.arrived)],
    ids=["deleted", "set", "arrived"],
)
async def test_a_pool(server: EmbeddedServer, queue: Queue, damage: tuple[Any, ...], key_of: KeyOf) -> None:
    work = Work()

    async def task(arguments: list[int]) -> int:
        return await work(*arguments)

    async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", task, 8, retries=3, lease=30):
        async with damaged_again_and_again(queue, damage, key_of) as damages:
            await queue.push(*({"id": number, "task": [number]} for number in range(TASKS)))
            await wait_until(lambda: queue.answered(TASKS), f"{TASKS} answers")
            assert sum(damages.values()) > 1
        results = await queue.results()
        assert {int(id) for id in results} == set(range(TASKS))
        assert await queue.redis.llen(queue.keys.dead) == sum(number % 20 == 7 for number in range(TASKS))
        assert work.calls == Counter({number: deliveries(number) for number in range(TASKS)})
    await forget(queue, damages)


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("damage", [("DEL",), ("SET", "x")], ids=["deleted", "set"])
async def test_a_topic(server: EmbeddedServer, topic: Topic, damage: tuple[Any, ...], idempotent: bool) -> None:
    work, worker = Work(), TopicWorker(server.url, lease=30)

    @worker.handler(topic.name, retries=3, idempotent=idempotent)
    async def handle(message: Message) -> None:
        await work(message.data)

    async with worker:
        async with damaged_again_and_again(topic, damage, Keys.inflight) as damages:
            await topic.push(*({"id": str(number), "data": number} for number in range(TASKS)))
            expected = Counter(number for number in range(TASKS) if number % 20 != 7)
            await wait_until(lambda: work.done == expected, "the messages")
            assert sum(damages.values()) > 1

        async def is_dead() -> bool:
            return bool(await topic.redis.llen(topic.keys.dead) == TASKS - expected.total())

        await wait_until(is_dead, "the dead letters")
        if not idempotent:
            assert work.calls == Counter({number: deliveries(number) for number in range(TASKS)})
    await forget(topic, damages)


async def forget(queue: Queue, damages: Counter[str]) -> None:
    """Delete the damaged keys; recovery would report them, and return what comes late."""
    await queue.redis.delete(*damages)


@pytest.mark.parametrize("command", ["settle", "release"])
async def test_a_repeated_call_that_was_executed_writes_nothing_again(
    server: EmbeddedServer, redis: Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Each reply is lost once: what the first call did is not done again by its repetition."""
    # Short tasks are claimed ahead, and a stop releases those.
    work, run, lost = Work(0.001 if command == "release" else 0.02), Connection.run, Counter[str]()

    async def run_and_lose(self: Connection, name: str, keys: Any, arguments: Any, **options: Any) -> Any:
        reply = await run(self, name, keys, arguments, **options)
        if name == command and lost["run"] < 20:
            lost["run"] += 1
            if lost["run"] % 2:
                raise Disconnected("the reply is lost")
        return reply

    monkeypatch.setattr(Connection, "run", run_and_lose)

    async def task(arguments: list[int]) -> int:
        return await work(*arguments)

    names = (server.url, queue.keys.waiting, queue.keys.output)
    numbers = [number for number in range(TASKS) if number % 20 != 7]
    await queue.push(*({"id": number, "task": [number]} for number in numbers))
    while await queue.redis.llen(queue.keys.waiting):  # a stop releases the tasks claimed ahead
        async with WorkerPool(*names, "list", task, 8, retries=3):
            before = len(work.done)
            await wait_until(lambda before=before: len(work.done) >= min(before + 60, len(numbers)))
    async with WorkerPool(*names, "list", task, 8, retries=3):
        await wait_until(lambda: queue.answered(len(numbers)))
    assert lost["run"]
    assert work.calls == Counter({number: deliveries(number) for number in numbers})
