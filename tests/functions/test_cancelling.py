"""Cancellation: removed where it waits, stopped where it runs, answered once whatever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from redis_worker import Retry, TaskError, TaskQueue, current_task
from redis_worker.broker.queue.large_tasks import LARGE_BYTES
from redis_worker.cli.main import cli
from redis_worker.embedded import EmbeddedServer
from tests.functions.conftest import Start, end
from tests.support import PATIENCE, Queue, wait_until

CANCELLED = {"status": "error", "error": "cancelled"}


async def test_what_waits_or_is_delayed_is_removed_with_its_answer(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task
    async def work(number: int) -> int:
        return number

    handles = await work.submit_many([(number,) for number in range(250)])
    later = await work.options(delay="1h", id='odd "id" é').submit(1)
    await queue.push(b'{"task":{"name":"work","args":[1]},"id":77777777777777777777}')
    assert await asyncio.gather(*(handle.cancel() for handle in (handles[0], handles[120], handles[249], later))) == [
        *(True, True, True, True)
    ]
    assert await tasks.handle(77777777777777777777).cancel()
    assert not await handles[0].cancel()
    assert not await tasks.handle("unknown").cancel()
    assert await queue.redis.llen(queue.keys.waiting) == 247
    results = await queue.results()
    assert results == dict.fromkeys(
        [handles[0].id, handles[120].id, handles[249].id, later.id, "77777777777777777777"], CANCELLED
    )
    with pytest.raises(TaskError, match="cancelled"):
        await later.result(PATIENCE)
    assert await later.status() == "cancelled"
    async with tasks.worker():
        assert await handles[1].result(PATIENCE) == 1
        assert not await handles[1].cancel()
        await wait_until(lambda: queue.answered(252))
    assert set((await queue.ledger()).values()) == {1}
    assert await handles[1].result(PATIENCE) == 1


async def test_a_coroutine_ends_at_once_and_is_not_retried(
    tasks: TaskQueue, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "redis_worker")
    ended: list[str] = []
    started: list[int] = []

    @tasks.task(retries=5)
    async def hang(how: str, filler: str = "") -> str:
        started.append(1)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(how)
            if how == "swallows":
                return "a value"
            if how == "retries":
                raise Retry from None
            await asyncio.sleep(0.01)
            raise
        return "never"

    async with tasks.worker(concurrency=3) as worker:
        calls = [
            hang.call("swallows"),
            hang.call("retries"),
            hang.call("raises", "x" * LARGE_BYTES),
            hang.call("waits"),
        ]
        handles = await tasks.submit_many(calls)
        await wait_until(lambda: len(started) == 3)
        for handle in reversed(handles):
            assert await handle.cancel()
        await wait_until(lambda: queue.answered(4))
        assert set(ended) == {"swallows", "retries", "raises"}
        assert not await handles[0].cancel()
        assert worker.running == 0
    assert worker.counters.retried == 0
    assert list((await queue.results()).values()) == [CANCELLED] * 4
    assert not await queue.redis.exists(queue.keys.cancelled, queue.keys.attempts, queue.keys.dead)
    assert sorted(text.split()[3] for text in caplog.messages if text.startswith("task ")) == ["cancelled"] * 3
    assert "failed" not in caplog.text


@pytest.mark.parametrize("others", [True, False])  # by both runners of threads
async def test_a_thread_sees_it_and_keeps_its_slot(tasks: TaskQueue, queue: Queue, others: bool) -> None:
    is_cancelled, go = threading.Event(), threading.Event()

    @tasks.task
    def work() -> str:
        task = current_task()
        assert not task.cancelled
        go.set()
        while not task.cancelled:
            is_cancelled.wait(0.005)
        is_cancelled.set()
        return "a part"

    if others:

        @tasks.task
        async def other() -> None: ...

    async with tasks.worker(concurrency=1) as worker:
        handle = await work.submit()
        await wait_until(go.is_set)
        assert worker.running == 1
        assert await handle.cancel()
        await wait_until(lambda: queue.answered(1))
    assert is_cancelled.is_set()
    assert await queue.result(handle.id) == CANCELLED


async def test_a_process_is_killed_uncharged(start: Start, tasks: TaskQueue, queue: Queue, tmp_path: Path) -> None:
    worker = start("run", "tests.functions.shop:queue", "-c", "1")
    await queue.push(b'{"id":"1","task":{"name":"hold","args":[60]}}', b'{"id":"2","task":{"name":"hold","args":[0]}}')
    await wait_until(lambda: list(tmp_path.glob("held-*")) != [])
    (held,) = tmp_path.glob("held-*")
    assert await tasks.handle(1).cancel()
    assert isinstance(await tasks.handle(2).result(PATIENCE), int)  # a process of its own, and the slot is free
    assert await queue.result(1) == CANCELLED
    await wait_until(lambda: not os.path.exists(f"/proc/{held.name.removeprefix('held-')}"))
    assert await queue.dead() == []
    await end(worker)


async def test_it_holds_when_the_worker_dies_and_nothing_late_is_written(
    start: Start, tasks: TaskQueue, queue: Queue, tmp_path: Path
) -> None:
    first, second = (start("run", "tests.functions.shop:queue", "-c", "1", "--lease", "2") for _ in range(2))
    ids = ("killed", "slow")
    await queue.push(*({"id": id, "task": {"name": "wait", "args": [60]}} for id in ids))
    await wait_until(lambda: len(list(tmp_path.glob("waits-*"))) == 2)
    for process in (first, second):
        process.process.send_signal(signal.SIGSTOP)
    for id in ids:
        assert await tasks.handle(id).cancel()
    assert [await tasks.handle(id).status() for id in ids] == ["pending", "pending"]
    first.process.kill()
    third = start("run", "tests.functions.shop:queue", "-c", "1", "--lease", "2")
    await wait_until(lambda: queue.answered(2))
    assert await queue.results() == dict.fromkeys(ids, CANCELLED)
    await queue.redis.hset(queue.keys.output, "slow", "as it was")
    second.process.send_signal(signal.SIGCONT)
    await second.said("presumed dead")
    await queue.push(b'{"id":"other","task":{"name":"add","args":[1]}}')
    assert await tasks.handle("other").result(PATIENCE) == 2
    assert await queue.redis.hget(queue.keys.output, "slow") == b"as it was"
    assert len(list(tmp_path.glob("waits-*"))) == 2  # none ran again
    assert not await queue.redis.exists(queue.keys.cancelled)
    await end(second, third)


async def test_a_cancel_that_comes_before_a_retry_holds(tasks: TaskQueue, queue: Queue) -> None:
    runs: list[int] = []

    @tasks.task(retries=3, retry_backoff=3600, retry_backoff_max=3600)
    async def fails() -> None:
        runs.append(1)
        raise OSError

    async with tasks.worker():
        handle = await fails.submit()
        await wait_until(lambda: queue.redis.exists(queue.keys.delayed))
        assert await handle.cancel()
        assert await queue.result(handle.id) == CANCELLED
    assert runs == [1]
    assert not await queue.redis.exists(queue.keys.attempts)


async def test_the_command(tasks: TaskQueue, queue: Queue, server: EmbeddedServer) -> None:
    from click.testing import CliRunner

    await queue.push(b'{"id":"1","task":[]}', b'{"id":"2","task":[]}')
    keys = ["--url", server.url, "--input", queue.keys.waiting, "--output", queue.keys.output]

    def run(*ids: str) -> Any:
        return CliRunner().invoke(cli, ["cancel", *keys, *ids], standalone_mode=False)

    done = await asyncio.to_thread(run, "2", "3")
    assert (done.return_value, done.stdout) == (1, "2: cancelled\n")
    assert done.stderr == "3: answered already, or not found\n"
    assert (await asyncio.to_thread(run, "1")).return_value == 0
    assert await queue.results() == {"1": CANCELLED, "2": CANCELLED}
