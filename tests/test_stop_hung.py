"""A stop while Redis hangs takes as long as is documented, and is a stop like any other: exit code 0."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Publisher, TopicWorker, WorkerPool
from redis_worker.broker.keys import Keys
from redis_worker.embedded import EmbeddedServer
from redis_worker.supervisor.supervisor import Supervisor
from tests.support import CommandProcess, WorkerProcess, wait_until
from tests.test_supervisor import File

# What a stop may take beyond its shutdown timeout when Redis hangs, in seconds (docs/operations.md); a supervisor.
BEYOND, SUPERVISOR_BEYOND = 8.0, 12.0
TIMEOUT = 3.0
# On a busy machine. Without the limits it would take for ever.
SLACK = 30.0


@pytest.fixture(scope="session")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def hang(own_server: EmbeddedServer) -> Iterator[Callable[[], None]]:
    """Has the server stand still; at the end it goes on."""
    yield lambda: os.kill(own_server.pid, signal.SIGSTOP)
    os.kill(own_server.pid, signal.SIGCONT)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds + SLACK, f"it took {took:.1f} s"


async def push(server: EmbeddedServer, task: Any, count: int = 4) -> None:
    async with Redis.from_url(server.url) as client:
        for id in range(count):
            await client.rpush("in", f'{{"id":{id},"task":{task}}}')


@pytest.mark.parametrize("busy", [pytest.param(False, marks=pytest.mark.long), True], ids=["idle", "busy"])
@pytest.mark.parametrize("arguments", [(), ("-w", "2"), ("--delivery", "at-most-once")], ids=["run", "fleet", "lossy"])
async def test_run(
    own_server: EmbeddedServer, hang: Callable[[], None], arguments: tuple[str, ...], busy: bool
) -> None:
    limit = ("--shutdown-timeout", f"{TIMEOUT:g}")
    process = WorkerProcess(own_server.url, Keys("in", "out"), *limit, *arguments, processor="tests.processors:sleep")
    try:
        await process.started()
        if busy:
            await push(own_server, "[600]")
            async with Redis.from_url(own_server.url) as client:
                await wait_until(lambda: _empty(client))
        await asyncio.sleep(1.2)
        hang()
        await asyncio.sleep(0.3)
        process.signal(signal.SIGTERM)
        with within(TIMEOUT + BEYOND):
            assert await process.ended() == 0, process.log
    finally:
        process.close()


async def _empty(client: Redis) -> bool:
    return not await client.llen("in")


async def test_serve(own_server: EmbeddedServer, hang: Callable[[], None], tmp_path: Path) -> None:
    """A pool, a pool in a process of its own, topics, and a cron job."""
    path = tmp_path / "workers.toml"
    pool = 'parser = "list"\nprocessor = "sum"\n'
    path.write_text(
        f'[worker]\nname = "hung"\nshutdown_timeout = {TIMEOUT:g}\n'
        f'[redis]\nurl = "{own_server.url}"\n'
        f'[pools.a]\ninput = "a:in"\noutput = "a:out"\n{pool}'
        f'[pools.b]\ninput = "b:in"\noutput = "b:out"\nprocesses = 1\n{pool}'
        '[topics."some.*"]\nhandler = "tests.parts:heeds_message"\n'
        '[cron.tick]\nschedule = "* * * * * *"\npush = { input = "c:in", task = 1 }\n'
    )
    process = CommandProcess("serve", str(path))
    try:
        await process.said("parts run")
        await asyncio.sleep(1.2)
        hang()
        await asyncio.sleep(0.3)
        process.signal(signal.SIGTERM)
        with within(TIMEOUT + SUPERVISOR_BEYOND):
            assert await process.ended() == 0, process.log
    finally:
        process.close()


@pytest.mark.parametrize("given", ["url", "client"])
async def test_a_pool_in_a_program(own_server: EmbeddedServer, hang: Callable[[], None], given: str) -> None:
    client = Redis.from_url(own_server.url)
    redis = own_server.url if given == "url" else client
    try:
        async with WorkerPool(redis, "in", "out", "list", "sum", shutdown_timeout=TIMEOUT) as pool:
            await push(own_server, "[1,2]", 1)
            await wait_until(lambda: pool.counters.processed)
            hang()
            await asyncio.sleep(0.3)
            began = time.monotonic()
        assert time.monotonic() - began < TIMEOUT + BEYOND + SLACK
    finally:
        await client.aclose()


async def test_topics_in_a_program(own_server: EmbeddedServer, hang: Callable[[], None]) -> None:
    """More of them than there are connections."""
    worker = TopicWorker(own_server.url, shutdown_timeout=TIMEOUT)
    handled: list[str] = []

    @worker.handler("some.*")
    async def handle(message: Any) -> None:
        handled.append(message.topic)

    async with Publisher(own_server.url) as publisher:
        for number in range(60):
            await publisher.publish(f"some.{number}", 1)
    async with worker:
        await wait_until(lambda: len(handled) == 60)
        hang()
        await asyncio.sleep(2.5)  # it asks for topics just now
        began = time.monotonic()
    assert time.monotonic() - began < TIMEOUT + BEYOND + SLACK


def catches(pid: int, number: signal.Signals) -> bool:
    """Return True if the process handles the signal `number`: it has done its imports."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(mask >> (number - 1) & 1)


async def test_a_stop_at_start(own_server: EmbeddedServer, hang: Callable[[], None]) -> None:
    hang()
    process = WorkerProcess(own_server.url, Keys("in", "out"), "--connect-timeout", "0")
    try:
        await wait_until(lambda: catches(process.pid, signal.SIGTERM), "the process to begin")
        process.signal(signal.SIGTERM)
        with within(BEYOND):
            assert await process.ended() == 0, process.log
    finally:
        process.close()


@pytest.mark.parametrize(
    "enter", [Supervisor.run, Supervisor.start, Supervisor.__aenter__], ids=["run", "start", "with"]
)
async def test_cancelling_a_supervisor_that_starts(tmp_path: Path, enter: Callable[..., Any]) -> None:
    """It stops at once, as when it has started: no part gets its shutdown timeout."""
    file = File(tmp_path, "redis://127.0.0.1:1")
    pool = '[pools.away]\ninput = "in"\noutput = "out"\nprocessor = "sum"\n'
    supervisor = file.supervisor(file.daemon("consumer", "stubborn"), pool)
    starting = asyncio.create_task(enter(supervisor))
    await wait_until(lambda: len(supervisor.parts()) == 2)
    with within(3.0):
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert file.left() == ["begin:stubborn", "cancelled:stubborn"]
