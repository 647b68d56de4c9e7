"""A supervisor that is reloaded under load has as many file descriptors as before."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

from redis_worker.embedded import EmbeddedServer
from redis_worker.supervisor.supervisor import Supervisor
from tests.support import Queue, wait_until


@pytest.fixture(scope="session")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
@pytest.mark.parametrize(
    "kind", ["process", "thread", "async", pytest.param("in processes", marks=pytest.mark.long), "topics", "cron"]
)
async def test_a_reload_gives_back_what_it_ends(
    server: EmbeddedServer, queue: Queue, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "workers.toml"
    keys = queue.keys
    pool = f'[pools.a]\ninput = "{keys.waiting}"\noutput = "{keys.output}"\nshutdown_timeout = 1\nconcurrency = 3\n'
    processors = {
        "process": 'processor = "tests.processors:nap"\nexecution = "process"\n',
        "thread": 'processor = "tests.processors:nap"\nexecution = "thread"\n',
        "async": 'processor = "tests.processors:sleep"\n',
        "in processes": 'processor = "tests.processors:sleep"\nprocesses = 2\n',
    }
    topics = f'[topics."{keys.waiting}.*"]\nhandler = "tests.parts:heeds_message"\nretries = 1\n'
    cron = '[cron.tick]\nschedule = "0 0 1 1 *"\njob = "tests.parts:tick"\narguments = { marks = "/dev/null" }\n'
    part = pool + processors[kind] if kind in processors else topics if kind == "topics" else cron
    changed = {"topics": ("retries = 1", "retries = {}"), "cron": ("0 0 1", "0 {} 1")}
    before, after = changed.get(kind, ("concurrency = 3", "concurrency = 3\ndead_limit = 10{}"))

    def write(version: int) -> None:
        changed = part.replace(before, after.format(version))
        path.write_text(f'[worker]\nname = "{keys.waiting}"\n[redis]\nurl = "{server.url}"\n{changed}')

    async def settled() -> int:
        """How many there are once all work again."""
        await wait_until(lambda: all(each.state == "running" for each in supervisor.parts()))
        if kind in processors:
            counted = supervisor.counters.processed
            await wait_until(lambda: supervisor.counters.processed > counted + 20)
        await asyncio.sleep(0.2)
        return descriptors()

    write(1)
    await queue.push_tasks([0.02] for _ in range(20_000))
    gc.collect()
    gc.disable()  # as good as disabled, as where long-lived objects are spared
    before_all = descriptors()
    try:
        supervisor = Supervisor.from_file(path)
        async with supervisor:
            first = await settled()
            for version in range(2, 5):
                write(version)
                assert await supervisor.reload()
                now = await settled()
            assert now <= first + 3  # a process of its own, or a connection, more or less at the moment
        await wait_until(lambda: descriptors() <= before_all + 1)
    finally:
        gc.enable()
        await queue.redis.delete(keys.waiting, keys.output)
        if kind == "cron":
            await queue.redis.flushall()
