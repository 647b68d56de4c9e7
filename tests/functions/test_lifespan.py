"""The lifespan: once in each process before the first task, and the current task wherever a function runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from redis_worker import (
    Publisher,
    RedisWorkerError,
    TaskQueue,
    TopicWorker,
    WorkerPool,
    current_resources,
    current_task,
)
from redis_worker.broker.cron import CronStore
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.errors import LifespanFailed
from tests.functions import shop
from tests.functions.conftest import Start
from tests.support import PATIENCE, Queue, Topic, wait_until

SHOP = "tests.functions.shop:queue"


def _noted(folder: Path, what: str) -> set[int]:
    return {int(path.name.rpartition("-")[2]) for path in folder.glob(f"{what}-*")}


async def test_each_process_has_one(start: Start, tasks: TaskQueue, queue: Queue, tmp_path: Path) -> None:
    process = start("run", SHOP, "-c", "2", "-w", "2")
    await wait_until(lambda: len(_noted(tmp_path, "started")) == 2)
    workers = _noted(tmp_path, "started")
    await queue.push(
        *(b'{"id":"%s","task":{"name":"where_%s"}}' % (kind, kind) for kind in (b"async", b"thread", b"process"))
    )
    for kind in ("async", "thread", "process"):
        id, function, name, attempt, is_own, pid = await tasks.handle(kind).result(PATIENCE)
        assert (id, function, name, attempt, is_own) == (kind, f"where_{kind}", tasks.name, 1, True)
        assert (pid in workers) == (kind != "process")
    assert len(_noted(tmp_path, "started")) == 3
    process.process.terminate()
    await wait_until(lambda: not process.alive)
    assert process.process.returncode == 0
    assert _noted(tmp_path, "ended") == workers


async def test_a_start_that_fails_ends_the_command(
    start: Start, tasks: TaskQueue, queue: Queue, tmp_path: Path
) -> None:
    (tmp_path / "fail").touch()
    await queue.push(b'{"id":"1","task":{"name":"add","args":[1]}}')
    process = start("run", SHOP)
    await wait_until(lambda: not process.alive)
    assert process.process.returncode == 1
    assert process.log == "Error: the lifespan resources failed at its start: OSError: the database is away\n"
    assert await queue.redis.llen(queue.keys.waiting) == 1
    assert await queue.redis.delete(queue.keys.waiting)


async def test_a_file_runs_a_queue_and_a_pool_with_a_lifespan(
    start: Start, tasks: TaskQueue, queue: Queue, server: EmbeddedServer, tmp_path: Path
) -> None:
    file = tmp_path / "workers.toml"
    other = f"{queue.keys.waiting}:pool"
    file.write_text(
        f'[tasks.shop]\nqueue = "{SHOP}"\nconcurrency = 3\n[pools.pool]\nurl = "{server.url}"\ninput = "{other}"\n'
        f'output = "{queue.keys.output}"\nprocessor = "tests.functions.shop:processor"\nexecution = "process"\n'
        'lifespan = "tests.functions.shop:resources"\n'
    )
    process = start("serve", str(file))
    await queue.push(b'{"id":"1","task":{"name":"add","args":[1]}}', b'{"id":"2","task":{"name":"hang","args":[60]}}')
    await queue.redis.rpush(other, b'{"id":"3","task":[]}')
    assert await tasks.handle(1).result(PATIENCE) == 2
    assert await tasks.handle(2).status() in ("pending", "failed")
    assert await tasks.handle(3).result(PATIENCE) in _noted(tmp_path, "started") - {process.pid}
    await wait_until(lambda: queue.answered(3))
    assert (await queue.results())["2"]["error"] == "Processing error: timed out after 0.5 s"
    process.process.terminate()
    await wait_until(lambda: not process.alive)
    assert process.process.returncode == 0
    assert process.pid in _noted(tmp_path, "ended")
    async for key in queue.redis.scan_iter(f"*{other}*"):
        await queue.redis.delete(key)


async def test_pools_topics_and_cron_jobs_have_one(queue: Queue, topic: Topic, server: EmbeddedServer) -> None:
    opened: list[str] = []

    async def resources() -> AsyncIterator[str]:
        opened.append("in")
        yield "the database"
        opened.append("out")

    got: list[str] = []

    def work(_: Any) -> None:
        got.append(current_resources())

    await queue.push_tasks([[1]])
    async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", work, lifespan=resources):
        await wait_until(lambda: queue.answered(1))
    worker = TopicWorker(server.url, lifespan=resources)
    name = topic.keys.waiting.removeprefix("mq:")
    worker.handler(name)(work)
    async with worker, Publisher(server.url) as publisher:
        await publisher.publish(name, 1)
        await wait_until(lambda: len(got) == 2)
    assert opened == ["in", "out"] * 2
    assert got == ["the database"] * 2
    with pytest.raises(LookupError, match="no lifespan runs"):
        current_resources()
    with pytest.raises(LookupError, match="no task runs here"):
        current_task()


async def test_a_cron_job_has_one(server: EmbeddedServer, redis: Any) -> None:
    shop.of_job.clear()
    settings = JobSettings(
        *("job", "app", "* * * * * *"), job="tests.functions.shop:job", lifespan="tests.functions.shop:job_resources"
    )
    store = CronStore(server.url)
    await CronJob(settings, store).run_once()
    assert shop.of_job == ["in", "run", "out"]
    await store.close()
    await redis.flushall()


async def test_the_end_of_one_that_fails_is_an_error(tasks: TaskQueue) -> None:
    @tasks.lifespan
    async def resources() -> AsyncIterator[None]:
        yield
        raise OSError("the database is away")

    @tasks.task
    def work() -> None: ...

    with pytest.raises(LifespanFailed, match="the lifespan resources failed at its end: OSError: the database is away"):
        async with tasks.worker():
            await (await work.submit()).result(PATIENCE)
    assert issubclass(LifespanFailed, RedisWorkerError)
