"""`--forward`: results become tasks of another list, each once, whatever dies; errors end in the output hash."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from redis_worker import ConfigurationError, Refused, TaskQueue, WorkerPool
from redis_worker.broker.connection.preflight import check_forward
from redis_worker.broker.keys import Keys
from redis_worker.embedded import EmbeddedServer
from tests.support import Queue, WorkerProcess, wait_until


async def test_results_pass_through_pools_and_errors_end_in_the_hash(queue: Queue, server: EmbeddedServer) -> None:
    keys, second = queue.keys, f"{queue.keys.waiting}:2"

    def echo(arguments: list[Any]) -> Any:
        if arguments == ["bad"]:
            raise ValueError("bad")
        return arguments[0] if len(arguments) == 1 else arguments

    values = [1, "a/b \n é", None, [1, {"x": [], "y": {}}], 12345678901234567890123, 1.5, "x" * 100_000]
    await queue.push(*({"id": f'{number} "/é', "task": [value]} for number, value in enumerate(values)))
    await queue.push({"id": 77, "task": ["bad"]}, {"id": "unread", "task": 3}, b"no JSON")
    async with WorkerPool(server.url, keys.waiting, keys.output, "list", echo, forward=second) as pool:
        await wait_until(lambda: pool.counters.processed == len(values) + 3)
    found = {id: result["status"] for id, result in (await queue.results()).items()}
    assert found == {"77": "error", "unread": "error"}
    assert len(await queue.dead()) == 1
    passed = [json.loads(raw) for raw in await queue.redis.lrange(second, 0, -1)]
    assert {task["id"]: task["task"] for task in passed} == {
        f'{number} "/é': value for number, value in enumerate(values)
    }
    assert all(set(task) == {"id", "emit_ts", "task"} and task["emit_ts"] > 1.7e9 for task in passed)
    # The next pool has the same output hash: one answer for each id.
    async with WorkerPool(server.url, second, keys.output, lambda task: [task], echo):
        await wait_until(lambda: queue.answered(len(values) + 2))
    results = await queue.results()
    assert [results[f'{number} "/é']["result"] for number in range(len(values))] == values


async def test_kills_neither_lose_nor_double_what_is_passed_on(queue: Queue, server: EmbeddedServer) -> None:
    keys, second, count = queue.keys, f"{queue.keys.waiting}:2", 6000
    await queue.push_tasks([number, 1] for number in range(count))

    def start() -> WorkerProcess:
        return WorkerProcess(server.url, keys, "--forward", second, "-c", "8", "--lease", "2", processor="sum")

    workers = [start(), start()]
    await wait_until(lambda: _is_over(queue, second, 0))
    workers[0].kill()
    await wait_until(lambda: _is_over(queue, second, count - 1))
    await wait_until(lambda: _is_settled(queue))
    ids = Counter(json.loads(raw)["id"] for raw in await queue.redis.lrange(second, 0, -1))
    assert ids == Counter({str(number): 1 for number in range(count)})
    assert not await queue.redis.exists(keys.output, keys.dead)
    workers[1].process.terminate()
    assert await workers[1].ended() == 0
    for worker in workers:
        worker.close()
    await queue.redis.delete(second, *[key async for key in queue.redis.scan_iter(f"{keys.stem}:*")])


async def _is_over(queue: Queue, key: str, least: int) -> bool:
    return bool(await queue.redis.llen(key) > least)


async def _is_settled(queue: Queue) -> bool:
    return not await queue.waiting() and not await queue.inflight()


async def test_what_cannot_be_passed_on(queue: Queue, server: EmbeddedServer) -> None:
    def pool(**options: Any) -> WorkerPool:
        return WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", "sum", **options)

    with pytest.raises(ConfigurationError, match="forward needs at-least-once delivery"):
        pool(forward="x", delivery="at-most-once")
    for own in (queue.keys.waiting, queue.keys.output):
        with pytest.raises(ConfigurationError, match="forward names the pool's own key"):
            pool(forward=own)
    for wrong in ("", 1):
        with pytest.raises(ConfigurationError, match="forward must be the name of a key"):
            pool(forward=wrong)
    await queue.redis.set("x", "no list")
    with pytest.raises(Refused, match="the forward key 'x' holds a string, not a list"):
        await pool(forward="x").run()
    await queue.redis.delete("x")
    tasks = TaskQueue(server.url, queue.keys.waiting)
    tasks.task(len)
    with pytest.raises(ConfigurationError, match="a function waits for another one instead"):
        tasks.worker(forward="x")
    check_forward(Keys("{a}:in", "{a}:out"), "{a}:next")
    with pytest.raises(ConfigurationError, match="in Redis Cluster results are passed on only within one slot"):
        check_forward(Keys("{a}:in", "{a}:out"), "b:in")
