"""Priorities of functions and of pools: submitted, claimed, woken, killed, cancelled and seen at each of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from redis_worker import ConfigurationError, SyncTaskClient, TaskClient, TaskQueue, WorkerPool, start_worker_pool
from redis_worker.broker.operator.cancellation import Cancellation
from redis_worker.broker.operator.control import QueueControl
from redis_worker.broker.operator.status import StatusReader
from redis_worker.cli.main import cli
from redis_worker.embedded import EmbeddedServer
from redis_worker.file.plan import PoolPart
from redis_worker.file.reading import read_plan
from tests.processors import echo, gate
from tests.support import PATIENCE, Queue, WorkerProcess, wait_until

NAMES = ("high", "default", "low")
BY_NAME = "high,default,low"

Command = Callable[..., Awaitable[Result]]


async def lengths(queue: Queue) -> dict[str, int]:
    return {name: await queue.redis.llen(queue.keys.list_with(name)) for name in NAMES}


def tasks_of(server: EmbeddedServer, queue: Queue, priorities: Any = NAMES) -> TaskQueue:
    return TaskQueue(server.url, queue.keys.waiting, results=queue.keys.output, priorities=priorities)


async def test_functions_are_submitted_with_a_priority_and_run_in_order(server: EmbeddedServer, queue: Queue) -> None:
    tasks = tasks_of(server, queue)
    ran: list[str] = []

    @tasks.task
    async def work(name: str) -> str:
        ran.append(name)
        return name

    @tasks.task(priority="low")
    async def tidy(name: str) -> None:
        ran.append(name)

    low = await tidy.submit("low")
    first = await work.submit("default")
    later = work.options(delay=0.001, priority="high")
    calls = [
        work.call("default 2"),
        work.options(priority="high").call("high"),
        later.call("high, later"),
        tidy.options(priority="high").call("high 2"),
        work.options(priority="high", id="once").call("high 3"),
        work.options(priority="low", id="once").call("never"),
    ]
    handles = await tasks.submit_many(calls)
    assert await lengths(queue) == {"high": 3, "default": 2, "low": 1}
    assert handles[-1] == handles[-2]
    await wait_until(lambda: _promoted(tasks, queue))
    async with tasks.worker(concurrency=1):
        for handle in (low, first, *handles):
            await handle.result(PATIENCE)
    assert ran == ["high", "high 2", "high 3", "high, later", "default", "default 2", "low"]
    await tasks.close()


async def _promoted(tasks: TaskQueue, queue: Queue) -> bool:
    """Have another worker move what is due: it knows no priorities, and claims nothing."""
    async with QueueControl(tasks.redis, queue.keys.waiting) as control:
        await control.pause()
        async with WorkerPool(str(tasks.redis), queue.keys.waiting, queue.keys.output, "any", echo):
            await wait_until(lambda: _is_gone(queue))
        await control.resume()
    return True


async def _is_gone(queue: Queue) -> bool:
    return not await queue.redis.exists(queue.keys.delayed)


async def test_a_wrong_priority_is_a_sentence(server: EmbeddedServer, queue: Queue) -> None:
    tasks, plain = tasks_of(server, queue), tasks_of(server, queue, None)

    @tasks.task
    async def work() -> None: ...

    name = queue.keys.waiting
    with pytest.raises(ConfigurationError, match=f"the queue {name} has no priority 'hihg'; it has high, default, low"):
        work.options(priority="hihg")
    with pytest.raises(ConfigurationError, match="has no priority 'urgent'"):
        tasks.task(priority="urgent")(lambda: None)
    with pytest.raises(ConfigurationError, match=f"the queue {name} has no priorities, so there is no 'high'"):
        plain.task(priority="high")(lambda: None)
    with pytest.raises(ConfigurationError, match="priorities is no option of a worker on functions"):
        tasks.worker(priorities=NAMES)
    async with TaskClient(server.url, name, queue.keys.output) as client:
        with pytest.raises(ConfigurationError, match="a priority is a name of letters"):
            await client.submit(1, priority="a:b")
        await client.submit(1, priority="low")  # no worker so far: nobody knows
        await work.options(priority="high").submit()  # this announces them
        with pytest.raises(ConfigurationError, match="no priority 'hihg'; it has high, default, low"):
            await client.submit(1, priority="hihg")
        assert await client.submit_many([1, 2], priority="high")
    assert await lengths(queue) == {"high": 3, "default": 0, "low": 1}
    await queue.redis.delete(*(queue.keys.list_with(name) for name in NAMES))
    await tasks.close()


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
async def test_a_push_to_any_list_wakes_an_idle_worker(server: EmbeddedServer, queue: Queue, delivery: str) -> None:
    keys = queue.keys
    async with WorkerPool(
        *(server.url, keys.waiting, keys.output, "any", echo), priorities=BY_NAME, delivery=delivery
    ) as pool:
        for number in range(9):
            raw = json.dumps({"id": number, "task": number})
            await queue.redis.rpush(keys.list_with(NAMES[number % 3]), raw)
            await wait_until(lambda count=number + 1: queue.answered(count))
        await wait_until(lambda: pool.counters.succeeded == 9)


async def test_a_kill_returns_each_task_to_its_list_and_all_are_answered(
    worker: Callable[..., WorkerProcess], queue: Queue, server: EmbeddedServer, tmp_path: Path
) -> None:
    options = ("--priorities", BY_NAME, "--lease", "2")
    first = await worker(*options, "-c", "8", processor="tests.processors:gate").started()
    pushed = {name: [f"{name}-{number}" for number in range(3)] for name in NAMES}
    for name, some in pushed.items():
        raws = [json.dumps({"id": id, "task": [str(tmp_path)]}) for id in some]
        await queue.redis.rpush(queue.keys.list_with(name), *raws)
    await wait_until(lambda: (tmp_path / "running").exists() and len((tmp_path / "running").read_text().split()) == 8)
    async with QueueControl(server.url, queue.keys.waiting) as control:
        await control.pause()
        first.kill()
        where = server.url, queue.keys.waiting, queue.keys.output, "list", gate
        async with WorkerPool(*where, lease=2):  # it knows no priorities, and returns the tasks all the same
            await wait_until(queue.buried)
        for name, some in pushed.items():
            found = await queue.redis.lrange(queue.keys.list_with(name), 0, -1)
            assert [json.loads(raw)["id"] for raw in found] == some
        (tmp_path / "open").touch()
        await control.resume()
    async with WorkerPool(*where, priorities=NAMES):
        await wait_until(lambda: queue.answered(9))
    assert {result["status"] for result in (await queue.results()).values()} == {"success"}
    await queue.redis.delete(queue.keys.attempts)


async def test_a_task_is_cancelled_and_forgotten_at_each_priority(server: EmbeddedServer, queue: Queue) -> None:
    tasks = tasks_of(server, queue)
    started = asyncio.Event()

    @tasks.task
    async def hang(number: int) -> None:
        started.set()
        await asyncio.sleep(60)

    handles = [await hang.options(priority=name, unique=True).submit(number) for number, name in enumerate(NAMES)]
    delayed = await hang.options(priority="high", delay="1h").submit(7)
    again = [await hang.options(priority="low", unique=True).submit(number) for number in range(3)]
    assert again == handles
    assert await handles[0].cancel()
    assert await delayed.cancel()
    async with Cancellation(server.url, queue.keys.waiting, queue.keys.output) as cancellation:
        assert await cancellation.cancel(handles[2].id)
    assert await lengths(queue) == {"high": 0, "default": 1, "low": 0}
    await handles[1].cancel()
    running = await hang.options(priority="low").submit(9)
    async with tasks.worker():
        await started.wait()
        assert await running.cancel()
        await wait_until(lambda: queue.answered(5))
    assert {result["error"] for result in (await queue.results()).values()} == {"cancelled"}
    assert await hang.options(priority="low", unique=True).submit(10)
    async with QueueControl(server.url, queue.keys.waiting) as control:
        assert await control.purge() == 1
    assert not await queue.redis.exists(queue.keys.unique)
    await tasks.close()


@pytest.fixture
def command(server: EmbeddedServer, queue: Queue) -> Command:
    """Runs a command on the queue."""

    async def run(name: str, *arguments: str) -> Result:
        asked = [name, "--url", server.url, "--input", queue.keys.waiting, *arguments]
        return await asyncio.to_thread(CliRunner().invoke, cli, asked, standalone_mode=False)

    return run


async def test_commands_push_to_show_and_empty_each_list(
    command: Command, worker: Callable[..., WorkerProcess], server: EmbeddedServer, queue: Queue
) -> None:
    assert await worker("--burst", env={"REDIS_WORKER_PRIORITIES": "high=2,low=1,default=1"}).ended() == 0
    wrong = await command("push", "--priority", "urgent", "[1]")
    assert "has no priority 'urgent'; it has high, low, default" in str(wrong.exception)
    for priority, id in (("low", "l"), ("high", "h"), ("default", "d")):
        assert (await command("push", "--priority", priority, "--id", id, "[1, 2]")).exit_code == 0
    assert (await command("push", "--priority", "high", "--left", "--id", "h0", "[1, 2]")).exit_code == 0
    assert await lengths(queue) == {"high": 2, "default": 1, "low": 1}
    peeked = (await command("peek")).stdout
    assert [json.loads(line)["id"] for line in peeked.splitlines()] == ["h0", "h", "l", "d"]
    async with StatusReader(server.url, [queue.keys.waiting]) as reader:
        assert (await reader.read()).queues[0].waiting == 4
    keys = queue.keys.waiting, queue.keys.output
    assert (
        await start_worker_pool(server.url, *keys, "any", echo, priorities=("high", "default"), burst=True)
    ).succeeded
    assert (await queue.results()).keys() == {"h0", "h", "d"}
    assert (await command("purge", "--yes")).output.startswith("1 ")
    assert await lengths(queue) == dict.fromkeys(NAMES, 0)


@pytest.mark.parametrize("written", ['["high", "default"]', '"high,default"', "{ high = 2, default = 1 }"])
def test_a_pool_in_a_file_has_priorities(tmp_path: Path, written: str) -> None:
    file = tmp_path / "workers.toml"
    text = '[pools.a]\ninput = "in"\noutput = "out"\nprocessor = "sum"\nurl = "redis://here"\npriorities = '
    file.write_text(text + written)
    (part,) = read_plan(str(file)).parts
    assert isinstance(part, PoolPart)
    pool = WorkerPool(part.url, "in", "out", "any", echo, **part.options)
    assert str(pool.options.priorities) == "high, default"
    file.write_text(text + '["high"]')
    with pytest.raises(ConfigurationError, match=r"6: pools\.a\.priorities: must include default, the list itself"):
        read_plan(str(file))


async def test_programs_without_an_event_loop_submit_with_priorities(server: EmbeddedServer, queue: Queue) -> None:
    def submit() -> None:
        with SyncTaskClient(server.url, queue.keys.waiting, queue.keys.output, priorities=NAMES) as client:
            client.submit(1, priority="high")
            client.submit_many([1, 2], priority="low")
            with pytest.raises(ConfigurationError, match="no priority 'hihg'"):
                client.submit(1, priority="hihg")

    await asyncio.to_thread(submit)
    assert await lengths(queue) == {"high": 1, "default": 0, "low": 2}
    async with QueueControl(server.url, queue.keys.waiting) as control:
        assert await control.purge() == 3
