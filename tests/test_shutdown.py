"""Stopping: nothing is lost, nothing is charged, what was not started is back in its order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Refused, WorkerPool, start_worker_pool
from redis_worker.broker.keys import Keys
from redis_worker.embedded import EmbeddedServer
from redis_worker.engine.loop import loop_factory
from tests.support import Queue, WorkerProcess, rounds_until, wait_until

Start = Callable[..., WorkerProcess]


def ids(raws: list[bytes]) -> list[int]:
    return [json.loads(raw)["id"] for raw in raws]


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
@pytest.mark.parametrize(("processor", "concurrency"), [("echo", "4"), ("sleep", "64"), ("nap", "8")])
async def test_sigterm_under_full_load(
    queue: Queue, worker: Start, processor: str, concurrency: str, delivery: str
) -> None:
    count = 200_000 if processor == "echo" else 5_000
    await queue.push_tasks([[0.001, n] for n in range(count)])
    process = worker("-c", concurrency, "--delivery", delivery, processor=f"tests.processors:{processor}")
    await wait_until(lambda: queue.answered(count // 50))
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.log
    waiting = ids(await queue.waiting())
    answered = {int(id) for id in await queue.results()}
    assert waiting == sorted(waiting)
    assert len(waiting) + len(answered) == count
    assert answered | set(waiting) == set(range(count))
    assert not await queue.inflight()
    assert not await queue.redis.exists(queue.keys.attempts)  # nothing is charged
    assert await queue.dead() == []


async def test_running_tasks_finish_within_the_timeout(queue: Queue, worker: Start, tmp_path: Path) -> None:
    process = await worker("-c", "2", processor="tests.processors:gate").started()
    await queue.push_tasks([[str(tmp_path)]] * 4)
    await wait_until(lambda: _lines(tmp_path / "running") == 2)
    process.signal(signal.SIGTERM)
    await wait_until(lambda: "stopping: 2 tasks are running" in process.log)
    await wait_until(lambda: _waiting(queue, [2, 3]))
    (tmp_path / "open").touch()
    assert await process.ended() == 0
    assert set(await queue.results()) == {"0", "1"}
    assert ids(await queue.waiting()) == [2, 3]


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


async def _waiting(queue: Queue, expected: list[int]) -> bool:
    return ids(await queue.waiting()) == expected


@pytest.mark.parametrize("processor", ["sleep", "nap", "in_process"])
async def test_what_does_not_finish_in_time_is_handed_back(queue: Queue, worker: Start, processor: str) -> None:
    task = ["sleep", 600] if processor == "in_process" else [600]
    process = worker("-c", "3", "--shutdown-timeout", "0.5", processor=f"tests.processors:{processor}")
    await process.started()
    await queue.push_tasks([task] * 5)
    await wait_until(lambda: _waiting(queue, [3, 4]))
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.log
    assert ids(await queue.waiting()) == [0, 1, 2, 3, 4]
    assert not await queue.redis.exists(queue.keys.attempts)


async def test_what_was_claimed_ahead_goes_back_while_the_last_task_runs(
    server: EmbeddedServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: others may run it, and need not wait for the end of the worker that has claimed it."""
    monkeypatch.setattr("redis_worker.engine.runner.PATIENCE", 600.0)  # it would go back after a while anyway

    async def work(arguments: list[int]) -> str:
        if pool.counters.claimed < pool.counters.processed + 20 or "waiting" in seen:
            return "quick"
        # Some are claimed behind this one.
        seen["waiting"] = len(await queue.waiting())
        pool.stop()
        rest = range(arguments[0] + 1, 5000)
        await wait_until(lambda: _waiting(queue, [*rest]), "the rest to be back in the queue")
        return "slow"

    seen: dict[str, int] = {}
    await queue.push_tasks([[n] for n in range(5000)])
    pool = WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", work, 1)
    await pool.run()
    assert pool.counters.released > 0
    assert [result["result"] for result in (await queue.results()).values()].count("slow") == 1


async def test_what_finishes_last_is_written(server: EmbeddedServer, queue: Queue) -> None:
    """Thousands of tasks that end when they are cancelled, with results: more than one write takes."""
    count = 3000

    async def work(arguments: list[int]) -> int:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
        return arguments[0]

    await queue.push_tasks([[n] for n in range(count)])
    names = (server.url, queue.keys.waiting, queue.keys.output, "list")
    async with WorkerPool(*names, work, count, shutdown_timeout=0) as pool:
        await wait_until(lambda: pool.running == count)
    assert {id: result["result"] for id, result in (await queue.results()).items()} == {str(n): n for n in range(count)}
    assert await queue.waiting() == []


async def test_a_second_signal_cancels_and_hands_back(queue: Queue, worker: Start) -> None:
    process = await worker("-c", "2", "--shutdown-timeout", "600", processor="tests.processors:sleep").started()
    await queue.push_tasks([[600]] * 3)
    await wait_until(lambda: _waiting(queue, [2]))
    process.signal(signal.SIGINT)
    await wait_until(lambda: "stopping" in process.log)
    assert process.alive
    process.signal(signal.SIGINT)
    assert await process.ended() == 1
    assert ids(await queue.waiting()) == [0, 1, 2]


async def test_a_third_signal_exits(queue: Queue, worker: Start) -> None:
    process = await worker("-c", "1", "--lease", "2", processor="tests.processors:stubborn").started()
    await queue.push_tasks([[]])
    async for _ in rounds_until(lambda: "1 task is running" in process.log, "the task to run"):
        process.signal(signal.SIGUSR1)
        await asyncio.sleep(0.1)
    for said in ("stopping", "cancelling"):
        process.signal(signal.SIGTERM)
        await process.said(said)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 1
    second = await worker("--lease", "2", processor="tests.processors:echo").started()
    await wait_until(lambda: queue.answered(1))
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0


async def test_sigterm_while_redis_is_away(own_server: EmbeddedServer) -> None:
    """With nothing to finish and nobody to tell, the worker ends; what it held is recovered later."""
    process = WorkerProcess(own_server.url, Keys("in", "out"), "--lease", "2")
    try:
        await process.started()
        own_server.stop()
        await wait_until(lambda: "Redis is away" in process.log)
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0, process.log
    finally:
        process.close()


async def test_cancelling_the_library_call_hands_everything_back(server: EmbeddedServer, queue: Queue) -> None:
    started = asyncio.Event()
    cancelled: list[int] = []

    async def work(arguments: list[Any]) -> None:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.append(arguments[0])
            raise

    await queue.push_tasks([[n] for n in range(5)])
    pool = asyncio.create_task(start_worker_pool(server.url, queue.keys.waiting, queue.keys.output, "list", work, 2))
    await started.wait()
    pool.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pool
    assert ids(await queue.waiting()) == [0, 1, 2, 3, 4]
    assert cancelled == [0, 1]
    assert await queue.results() == {}


async def test_the_end_of_the_with_block_is_a_graceful_stop(server: EmbeddedServer, queue: Queue) -> None:
    async def work(arguments: list[int]) -> int:
        await asyncio.sleep(0.1)
        return arguments[0]

    await queue.push_tasks([[n] for n in range(10)])
    async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", work, 3) as pool:
        await wait_until(lambda: pool.running == 3)
    assert set(await queue.results()) == {"0", "1", "2"}
    assert ids(await queue.waiting()) == [3, 4, 5, 6, 7, 8, 9]


async def test_a_pool_that_fails_ends_its_with_block(server: EmbeddedServer, queue: Queue) -> None:
    with pytest.raises(Refused, match="not a hash"):
        async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", "sum"):
            await queue.redis.set(queue.keys.output, "text")
            await queue.push_tasks([[1]])
            await asyncio.sleep(600)
    await queue.redis.delete(queue.keys.output)
    assert ids(await queue.waiting()) == [0]


async def test_burst_and_max_tasks(server: EmbeddedServer, queue: Queue) -> None:
    await queue.push_tasks([[n] for n in range(1000)])
    names = (server.url, queue.keys.waiting, queue.keys.output, "list", "sum")
    counters = await start_worker_pool(*names, 8, max_tasks=300)
    assert counters.processed == 300
    assert ids(await queue.waiting()) == list(range(300, 1000))
    counters = await start_worker_pool(*names, 8, burst=True)
    assert counters.processed == 700
    assert await queue.waiting() == []


@pytest.mark.long
def test_a_pool_that_fails_gives_nothing_to_its_closed_connection(server: EmbeddedServer) -> None:
    """A task that returns to the queue is not popped by the pool's own claim, whose connection has just been closed."""

    async def fail(number: int) -> list[bytes]:
        async with Redis.from_url(server.url) as redis:
            queue = f"test:closed:{number}"
            pool = WorkerPool(server.url, queue, f"{queue}:out", "list", "sum")
            running = asyncio.create_task(pool.run())
            await pool.wait_until_started()
            await redis.set(f"{queue}:out", "no hash")
            await redis.rpush(queue, '{"id":1,"task":[1]}')
            with pytest.raises(Refused):
                await running
            arrived: list[bytes] = await redis.keys(f"*{queue}}}*:arrived")
            await redis.delete(*await redis.keys(f"*{queue}*"))
            return arrived

    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            assert [left for number in range(60) if (left := runner.run(fail(number)))] == []
    finally:
        for process in busy:
            process.kill()
            process.wait()
