"""A crash after every call of a task's life: whatever is executed, another worker ends all tasks, each one once.

Each life has a task that is retried, one that is rejected and one that was delayed.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import PROCESSES, QUEUES, TOPICS, Keys
from redis_worker.broker.operator.control import tasks_in_flight
from redis_worker.broker.queue.delayed import delay_tasks
from redis_worker.embedded import EmbeddedServer
from tests.crashes import Forks
from tests.crashing_worker import EXECUTIONS, TASKS, TOPIC, Watch, worker_of
from tests.support import Queue, Topic, wait_until

LIVES = [*EXECUTIONS, "topic", "topic-thread", "idempotent", "batch"]
MOST_POINTS = 60
# Bytes that make a task a large one, with a list of its own.
LARGE = 20_000


@dataclass
class Crash:
    """What a killed worker has left."""

    held: set[str]
    """Tasks in flight: they are charged."""
    ended: set[str]
    """Tasks that are answered, completed or dead."""
    results: dict[str, dict]
    retries: int
    names: list[bytes]
    """Its names in the registry of workers."""


@pytest.mark.long  # tests/queue_calls shows the same call by call
@pytest.mark.parametrize(
    ("life", "padding"), [*((life, 0) for life in LIVES), ("inline", LARGE), ("idempotent", LARGE)]
)
@pytest.mark.timeout(600)
async def test_each_task_ends_once_wherever_its_worker_dies(
    life: str, padding: int, server: EmbeddedServer, redis: Redis, tmp_path: Path
) -> None:
    async with Forks("tests.crashing_worker") as forks:
        for point in count(1):
            assert point < MOST_POINTS
            folder = tmp_path / str(point)
            folder.mkdir()
            await redis.flushall()
            queue = Queue(redis, Keys("in", "out")) if life in EXECUTIONS else Topic(redis, TOPIC)
            await push(queue, folder, padding)
            if await forks.life(point, life, server.url) == 0:
                break
            crash = await examine(queue)
            watch = await finish(life, server.url, queue, crash)
            await check(life, queue, crash, watch, folder)
    assert point > 7  # claims and settlements: how many there are depends on the tasks that come together
    await redis.flushall()


async def push(queue: Queue, folder: Path, padding: int) -> None:
    member = "data" if isinstance(queue, Topic) else "task"
    members = {"padding": "x" * padding} if padding else {}
    raws = {id: json.dumps({"id": id, member: [id, str(folder)], **members}).encode() for id in TASKS}
    await queue.push(raws["retry"], raws["reject"])
    await delay_tasks(Connection(queue.redis, owned=False), queue.keys, [raws["delayed"]], delay=0.05, at=None)
    if isinstance(queue, Topic):
        await queue.redis.sadd(TOPICS, TOPIC)


async def examine(queue: Queue) -> Crash:
    places = await queue.ledger()
    assert max(places.values(), default=0) <= 1
    held = {json.loads(raw)["id"] for raw in await held_by_the_dead(queue)}
    letters = {letter["id"] for letter in await queue.dead()}
    results = {} if isinstance(queue, Topic) else await queue.results()
    ended = (set(TASKS) - places.keys() if isinstance(queue, Topic) else results.keys()) | letters
    assert places.keys() | ended == set(TASKS)
    counts = await queue.redis.hgetall(queue.keys.attempts)
    assert all(name.startswith(b"r") for name in counts)
    # Its lease ends.
    names = await queue.redis.zrange(queue.keys.workers, 0, -1)
    for name in names:
        await queue.redis.zadd(queue.keys.workers, {name: 1})
    return Crash(held, ended, results, sum(map(int, counts.values())), names)


async def held_by_the_dead(queue: Queue) -> list[bytes]:
    names = await queue.redis.zrange(queue.keys.workers, 0, -1)
    connection = Connection(queue.redis, owned=False)
    return [raw for name in names for raw in await tasks_in_flight(connection, queue.keys, name.decode())]


async def finish(life: str, url: str, queue: Queue, crash: Crash) -> Watch:
    """Let another worker end all tasks."""
    watch = Watch()
    worker = worker_of(life, url, watch, lease=2)
    running = asyncio.create_task(worker.run())

    async def is_finished() -> bool:
        assert not running.done()
        living = set(await queue.redis.zrange(queue.keys.workers, 0, -1))
        return watch.ended == len(TASKS) - len(crash.ended) and living.isdisjoint(crash.names)

    await wait_until(is_finished, "all tasks to end")
    worker.stop()
    await running
    return watch


async def check(life: str, queue: Queue, crash: Crash, watch: Watch, folder: Path) -> None:
    first = {}
    for delivery in watch.claims:
        first.setdefault(json.loads(delivery.raw)["id"], delivery)
    assert first.keys() == set(TASKS) - crash.ended
    assert {id for id, delivery in first.items() if delivery.deaths} == crash.held
    assert all(delivery.deaths <= 1 for delivery in watch.claims)
    if "retry" in first:
        assert first["retry"].retries == crash.retries
    [letter] = await queue.dead()
    assert letter["id"] == "reject"
    assert "not wanted" in letter["reason"]
    assert letter["attempts"] == 1 + ("reject" in crash.held)
    handled = Counter((folder / "handled").read_text().split())
    assert handled.keys() == {"retry", "delayed"}
    assert all(number == 1 or (number == 2 and id in crash.held) for id, number in handled.items())
    if life in EXECUTIONS:
        results = await queue.results()
        assert {id: result["status"] for id, result in results.items()} == {
            "retry": "success",
            "delayed": "success",
            "reject": "error",
        }
        assert {id: results[id] for id in crash.results} == crash.results
    if life == "idempotent":
        assert set(await queue.redis.zrange(queue.keys.done, 0, -1)) == {b"retry", b"delayed"}
    keys = queue.keys
    left = {key.decode() for key in await queue.redis.keys("*")}
    assert left <= {keys.output, keys.dead, keys.retired, keys.claimants, keys.done, TOPICS, QUEUES, PROCESSES}
