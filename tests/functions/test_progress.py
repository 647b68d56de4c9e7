"""Progress: reported wherever a function runs, thrown together, read by handles."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from redis_worker import TaskQueue, current_task
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.operator.status import StatusReader
from redis_worker.embedded import EmbeddedServer
from redis_worker.functions.progress import Progress
from tests.functions.conftest import Start, end
from tests.support import PATIENCE, Queue, wait_until
from tests.test_cli import Terminal


async def _clear(queue: Queue) -> None:
    async for key in queue.redis.scan_iter(f"{queue.keys.progress}:*"):
        assert 86_000_000 < await queue.redis.pttl(key) <= 86_400_000
        await queue.redis.delete(key)


async def test_coroutines_and_threads_report(tasks: TaskQueue, queue: Queue) -> None:
    go, of_thread = asyncio.Event(), threading.Event()

    @tasks.task
    async def coroutine() -> None:
        for number in range(1000):
            current_task().progress(number, 1000)
        current_task().progress(1000, 1000, "\N{PARTY POPPER}")
        await go.wait()
        current_task().progress(1001)

    @tasks.task
    def thread() -> None:
        current_task().progress(1, message="from a thread")
        of_thread.wait(30)

    before = await _writes(queue)
    async with tasks.worker(concurrency=2):
        first, second = await tasks.submit_many([coroutine.call(), thread.call()])
        assert await tasks.handle("unknown").progress() is None
        await wait_until(second.progress)
        await wait_until(first.progress)
        found = await first.progress()
        assert found is not None
        assert found[:3] == (1000, 1000, "\N{PARTY POPPER}")
        assert (await second.progress() or Progress(0))[:3] == (1, None, "from a thread")
        async with StatusReader(tasks.redis) as reader:
            await wait_until(lambda: _shows(reader, {"1,000/1,000 \N{PARTY POPPER}", "1 from a thread"}))
        seen = []
        async for progress in first.watch(every=0.05):
            seen.append(progress.done)
            go.set()
        of_thread.set()
        await second.result(PATIENCE)
        await wait_until(lambda: _done(first, 1001))
    assert seen[0] == 1000
    assert await _writes(queue) - before < 20
    await _clear(queue)


async def _shows(reader: StatusReader, reports: set[str]) -> bool:
    status = await reader.read()
    return {task.progress for worker in status.workers for task in worker.tasks} >= reports


async def _writes(queue: Queue) -> int:
    return int((await queue.redis.info("commandstats")).get("cmdstat_set", {"calls": 0})["calls"])


async def _done(handle: object, done: float) -> bool:
    found = await handle.progress()  # type: ignore[attr-defined]
    return bool(found is not None and found.done == done)


async def test_a_worker_without_its_lease_writes_nothing(queue: Queue) -> None:
    connection = Connection(queue.redis, owned=False)
    keys = [queue.keys.workers, queue.keys.progress]
    assert await connection.run("progress", keys, ["gone", 60_000, "1", b"{}"]) == 0
    await queue.redis.zadd(queue.keys.workers, {"here": 1})
    assert await connection.run("progress", keys, ["here", 86_400_000, "1", b"{}"]) == 1
    await queue.redis.delete(queue.keys.workers)
    await _clear(queue)


async def test_processes_report(start: Start, tasks: TaskQueue, queue: Queue, tmp_path: Path) -> None:
    worker = start("run", "tests.functions.shop:queue", "-c", "1")
    await queue.push(b'{"id":"1","task":{"name":"report_process"}}')
    handle = tasks.handle(1)
    await wait_until(lambda: _done(handle, 1))
    assert (await handle.progress() or Progress(0))[:3] == (1, 2, "half")
    (tmp_path / "go").touch()
    assert await handle.result(PATIENCE)
    await wait_until(lambda: _done(handle, 2))
    await end(worker)
    await _clear(queue)


async def test_in_tests_of_a_program(tasks: TaskQueue) -> None:
    @tasks.task
    async def work() -> None:
        current_task().progress(3, 4)

    async with tasks.testing():
        handle = await work.submit()
        assert [progress[:2] async for progress in handle.watch()] == [(3, 4)]


async def test_push_shows_it_while_it_waits(tasks: TaskQueue, server: EmbeddedServer, queue: Queue) -> None:
    go = asyncio.Event()

    @tasks.task
    async def work() -> int:
        current_task().progress(1, 2, "half\n")
        await go.wait()
        return 7

    keys = ("--url", server.url, "--input", queue.keys.waiting, "--output", queue.keys.output)
    terminal = Terminal("push", *keys, "--wait", '{"id":"p","task":{"name":"work"}}')
    try:
        async with tasks.worker():
            await wait_until(lambda: "p: 1/2 half\\n\r\n" in terminal.shown)
            go.set()
            assert await terminal.ended() == 0
        assert terminal.shown.endswith('{"id":"p","status":"success","result":7}\r\n')
    finally:
        terminal.close()
    await _clear(queue)
