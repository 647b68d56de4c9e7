"""Limits over all workers: a rate, so many at a time, so many at a time for each key; and nothing is lost by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from redis_worker import ConfigurationError, TaskError, TaskQueue
from redis_worker.broker.client.delayed_tasks import DelayedTasks
from redis_worker.embedded import EmbeddedServer
from redis_worker.functions.function import TaskFunction
from tests.functions import limited
from tests.functions.conftest import Start, end
from tests.support import PATIENCE, Queue, wait_until

Send = Callable[[TaskFunction[..., Any, int]], TaskFunction[..., Any, int]]
WORKER = ("run", "tests.functions.limited:queue", "-c", "8")


def logged(folder: Path, word: str) -> list[list[str]]:
    """Return the lines of the log that begin with a word, each as words."""
    file = folder / "log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split() for line in lines if line.startswith(word)]


def most_in(starts: list[float], period: float) -> int:
    """Return the greatest number of starts in a period of this length, wherever it begins."""
    starts = sorted(starts)
    return max(sum(first <= start < first + period for start in starts) for first in starts)


def most_at_once(lines: list[list[str]]) -> int:
    """Return the greatest number of tasks that had started and not ended."""
    running = most = 0
    for _, change in sorted((float(line[-2]), 1 if line[0] == "start" else -1) for line in lines):
        running += change
        most = max(most, running)
    return most


@pytest.fixture
async def send(tasks: TaskQueue) -> Send:
    """Returns a function that makes functions of `limited` those of the test's queue."""

    def send(function: TaskFunction[..., Any, int]) -> TaskFunction[..., Any, int]:
        made = tasks.task(name=function.name, per_key=function.limits.per_key)(function.__wrapped__)
        return cast("TaskFunction[..., Any, int]", made)

    return send


async def test_no_period_holds_more_starts_than_the_rate(
    send: Send, queue: Queue, start: Start, tmp_path: Path
) -> None:
    workers = [start(*WORKER) for _ in range(4)]
    handles = await send(limited.hit).submit_many([(number,) for number in range(70)])
    # They pass those that must wait, which hold no slot.
    for handle in await send(limited.free).submit_many([(number,) for number in range(50)]):
        await handle.result(PATIENCE)
    assert [await handle.result(PATIENCE) for handle in handles] == [*range(70)]
    starts = [float(words[2]) for words in logged(tmp_path, "hit")]
    assert len(starts) == 70
    assert most_in(starts, 0.5) <= 20
    await end(*workers)


async def test_a_killed_worker_leaves_no_place_taken(send: Send, queue: Queue, start: Start, tmp_path: Path) -> None:
    heavy, first = send(limited.heavy), start(*WORKER)
    stuck = await heavy.submit_many([(number, True) for number in range(3)])
    await wait_until(lambda: len(logged(tmp_path, "start")) == 3)
    second = start(*WORKER)
    handles = await heavy.submit_many([(number,) for number in range(3, 33)])
    await wait_until(lambda: is_waiting(queue, 30))
    first.process.kill()
    (tmp_path / "go").touch()
    assert sorted([await handle.result(PATIENCE) for handle in [*stuck, *handles]]) == [*range(33)]
    assert most_at_once([line for line in logged(tmp_path, "") if line[-1] == str(second.process.pid)]) <= 3
    await end(second)


async def is_waiting(queue: Queue, count: int) -> bool:
    """Return True if so many tasks are put off."""
    return bool(await queue.redis.zcard(queue.keys.delayed) == count)


async def test_so_many_run_at_a_time(send: Send, start: Start, tmp_path: Path) -> None:
    workers = [start(*WORKER) for _ in range(2)]
    handles = await send(limited.heavy).submit_many([(number,) for number in range(60)])
    assert sorted([await handle.result(PATIENCE) for handle in handles]) == [*range(60)]
    assert most_at_once(logged(tmp_path, "")) <= 3
    await end(*workers)


async def test_tasks_of_a_key_run_one_at_a_time(send: Send, start: Start, tmp_path: Path) -> None:
    workers = [start(*WORKER) for _ in range(2)]
    visit = send(limited.visit)
    calls = [visit.options(key=f"c{number % 5}").call(f"c{number % 5}", number) for number in range(40)]
    handles = await visit.queue.submit_many(calls)
    assert [await handle.result(PATIENCE) for handle in handles] == [*range(40)]
    for key in range(5):
        lines = [line for line in logged(tmp_path, "") if line[1] == f"c{key}"]
        assert len(lines) == 16
        assert most_at_once(lines) == 1
    assert most_at_once(logged(tmp_path, "")) > 1
    await end(*workers)


async def test_a_task_that_waits_is_seen_and_unique_and_can_be_cancelled(
    tasks: TaskQueue, server: EmbeddedServer, queue: Queue
) -> None:
    go = asyncio.Event()

    @tasks.task(concurrency=1, per_key=1)
    async def work(number: int) -> int:
        await go.wait()
        return number

    async with tasks.worker():
        (first,) = await work.submit_many([(1,)])
        await wait_until(lambda: queue.redis.exists(f"{queue.keys.limits}:concurrency:work"))
        second, third = [await work.options(id=number, key="a").submit(number) for number in (2, 3)]
        await wait_until(lambda: is_waiting(queue, 2))
        assert await work.options(id=2, key="a").submit(9) == second
        async with DelayedTasks(server.url, tasks.name) as delayed:
            listed = await delayed.here.first(9)
        assert [(task.id, task.due) for task in listed] == [("2", None), ("3", None)]
        assert await second.cancel()
        with pytest.raises(TaskError, match="cancelled"):
            await second.result(PATIENCE)
        go.set()
        assert [await first.result(PATIENCE), await third.result(PATIENCE)] == [1, 3]
    with pytest.raises(ConfigurationError, match="function free: key is of use with per_key"):
        tasks.task(name="free")(limited.free.__wrapped__).options(key="a")
    with pytest.raises(ConfigurationError, match="key must be a text or a whole number"):
        work.options(key=1.5)  # type: ignore[arg-type]


async def test_a_call_without_a_reply_is_repeated(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task(rate="2/50ms", concurrency=3)
    async def work(number: int) -> int:
        return number

    async with tasks.worker(32):
        handles = await work.submit_many([(number,) for number in range(40)])
        for handle in handles[::10]:
            await handle.result(PATIENCE)
            await queue.redis.client_kill_filter(_type="normal", skipme=True)
        assert [await handle.result(PATIENCE) for handle in handles] == [*range(40)]


async def test_a_task_that_waits_keeps_its_priority(server: EmbeddedServer, queue: Queue) -> None:
    tasks = TaskQueue(
        server.url, queue.keys.waiting, results=queue.keys.output, priorities=("high", "default"), result_ttl=None
    )
    go = asyncio.Event()

    @tasks.task(concurrency=1, priority="high")
    async def work() -> None:
        await go.wait()

    async with tasks.worker():
        handles = await work.submit_many([(), ()])
        await wait_until(lambda: is_waiting(queue, 1))
        (member,) = await queue.redis.zrange(queue.keys.delayed, 0, -1)
        assert b"@high:" in member
        go.set()
        for handle in handles:
            await handle.result(PATIENCE)
    await tasks.close()
    await queue.redis.delete(f"{queue.keys.stem}:priorities")
