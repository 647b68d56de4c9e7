"""Unique tasks: one for an id, one for a call; and no record that outlives its task, whatever dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from redis_worker import ConfigurationError, TaskError, TaskQueue
from redis_worker.broker.client.delayed_tasks import DelayedTasks
from redis_worker.broker.operator.control import QueueControl
from redis_worker.embedded import EmbeddedServer
from tests.functions import shop
from tests.functions.conftest import Start, end
from tests.support import PATIENCE, Queue, wait_until


async def test_an_id_that_waits_runs_or_is_answered_returns_its_handle(tasks: TaskQueue, queue: Queue) -> None:
    go = asyncio.Event()
    runs: list[int] = []

    @tasks.task
    async def work(number: int) -> int:
        runs.append(number)
        await go.wait()
        return number

    one = work.options(id=1)
    handles = await asyncio.gather(*(one.submit(number) for number in range(20)))
    assert {handle.id for handle in handles} == {"1"}
    assert await queue.redis.llen(queue.keys.waiting) == 1
    assert await work.options(id=1, delay="1h").submit(9) == handles[0]
    assert not await queue.redis.exists(queue.keys.delayed)
    async with tasks.worker():
        await wait_until(lambda: runs)
        await one.submit(99)
        go.set()
        value = await handles[0].result(PATIENCE)
        assert await (await one.submit(99)).result(PATIENCE) == value
        assert not await queue.redis.exists(queue.keys.unique)
        assert await handles[0].forget()
        assert await (await one.submit(99)).result(PATIENCE) == 99
    assert runs == [value, 99]


async def test_a_call_is_unique_until_it_is_answered(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task(retries=1, retry_backoff=0.01)
    async def work(number: int, factor: int = 2) -> int:
        if number < 0:
            raise OSError
        return number * factor

    once = work.options(unique=True)
    calls = [once.call(1), once.call(1, 2), once.call(number=1, factor=2), once.call(1, 3), work.call(1), once.call(-1)]
    handles = await tasks.submit_many(calls)
    assert len({handle.id for handle in handles}) == 4
    assert handles[0] == handles[1] == handles[2]
    async with tasks.worker():
        assert [await handle.result(PATIENCE) for handle in handles[:5]] == [2, 2, 2, 3, 2]
        with pytest.raises(TaskError):
            await handles[5].result(PATIENCE)
        assert len(await queue.dead()) == 1
        for old, call in ((handles[0], once.call(1)), (handles[5], once.call(-1))):
            (new,) = await tasks.submit_many([call])
            assert new != old
            await wait_until(lambda handle=new: queue.redis.hexists(queue.keys.output, handle.id))
        assert not await queue.redis.exists(queue.keys.unique)


async def test_a_call_is_unique_for_a_time(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task
    async def work(number: int) -> int:
        return number

    briefly = work.options(unique="10m")
    first = await briefly.submit(1)
    assert await briefly.submit(1) == first
    async with tasks.worker():
        assert await first.result(PATIENCE) == 1
        assert await briefly.submit(1) == first
        await first.forget()
        second = await briefly.submit(1)  # what cannot be had any more is done again
        assert second != first
        assert await second.result(PATIENCE) == 1
    (key,) = [key async for key in queue.redis.scan_iter(f"{queue.keys.unique}:*")]
    assert 500_000 < await queue.redis.pttl(key) <= 600_000
    await queue.redis.delete(key)
    assert await briefly.submit(1) != second
    await QueueControlOf(tasks).purge()
    await queue.redis.delete(key)
    with pytest.raises(ConfigurationError, match="unique"):
        work.options(unique="0s")


class QueueControlOf(QueueControl):
    """The control of a queue of functions."""

    def __init__(self, tasks: TaskQueue) -> None:
        super().__init__(tasks.redis, tasks.name)


async def test_no_record_outlives_a_task_that_is_removed(
    tasks: TaskQueue, queue: Queue, server: EmbeddedServer
) -> None:
    @tasks.task
    async def work(number: int) -> None: ...

    async def is_new(id: int) -> bool:
        before = await queue.redis.llen(queue.keys.waiting)
        await work.options(id=id, unique=True).submit(id)
        return bool(await queue.redis.llen(queue.keys.waiting) == before + 1)

    later = work.options(delay="1h", unique=True)
    assert await is_new(1)
    assert await is_new(2)
    await later.submit(3)
    delayed = await later.submit(4)
    assert await later.submit(4) == delayed
    async with QueueControlOf(tasks) as control:
        assert await control.purge() == 2
        assert await is_new(1)
        assert not await is_new(1)
        async with DelayedTasks(server.url, tasks.name) as found:
            assert await found.here.drop(await found.here.all()) == 2
        again = await later.submit(4)
        assert again != delayed
        assert await again.cancel()
        assert await tasks.handle(1).cancel()
        assert await tasks.handle(1).forget()
        assert await is_new(1)
        assert await control.purge() == 1
    assert not await queue.redis.exists(queue.keys.unique)


async def test_a_record_lasts_as_long_as_its_task_when_workers_die(
    start: Start, tasks: TaskQueue, queue: Queue, tmp_path: Path
) -> None:
    function = TaskQueue(tasks.redis, tasks.name, results=tasks.results).task(shop.wait.__wrapped__)
    once = function.options(unique=True)
    handle = await once.submit(30)
    for deaths in range(3):
        assert await once.submit(30) == handle
        worker = start("run", "tests.functions.shop:queue", "-c", "1", "--lease", "2")
        await wait_until(lambda count=deaths: len(list(tmp_path.glob("waits-*"))) > count)
        assert await once.submit(30) == handle
        worker.process.kill()
    worker = start("run", "tests.functions.shop:queue", "-c", "1", "--lease", "2")
    with pytest.raises(TaskError, match="died"):
        await handle.result(PATIENCE)
    assert not await queue.redis.exists(queue.keys.unique)
    second = await once.submit(30)
    assert second != handle
    assert await second.cancel()
    with pytest.raises(TaskError, match="cancelled"):
        await second.result(PATIENCE)
    await end(worker)
    await function.queue.transport.close()


async def test_in_tests_of_a_program(tasks: TaskQueue) -> None:
    runs: list[int] = []

    @tasks.task
    async def work(number: int) -> int:
        runs.append(number)
        return number

    async with tasks.testing():
        assert await work.options(id="a").submit(1) == await work.options(id="a").submit(2)
        assert await work.options(unique="10m").submit(3) == await work.options(unique="10m").submit(3)
        assert await work.options(unique=True).submit(4) != await work.options(unique=True).submit(4)
    assert runs == [1, 3, 4, 4]


async def test_a_worker_without_leases_is_refused(tasks: TaskQueue) -> None:
    """It could not end a record whose task is lost."""
    with pytest.raises(ConfigurationError, match="delivers at least once"):
        tasks.worker(delivery="at-most-once")
