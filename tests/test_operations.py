"""What an operator does to a running system: pause, look, empty, and ask what runs."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redis_worker import Message, Observer, Publisher, TopicWorker, WorkerPool, start_worker_pool
from redis_worker.broker.operator.control import QueueControl
from redis_worker.embedded import EmbeddedServer
from tests.support import ROOT, Queue, Topic, WorkerProcess, hold, wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]

TASKS = [b'{"id":"t%d","task":[%d]}' % (number, number) for number in range(5)]


@pytest.fixture
def command(server: EmbeddedServer, queue: Queue) -> Command:
    """Runs a command on the queue, without a terminal."""

    def run(name: str, *arguments: str, key: str = queue.keys.waiting) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - the tests look at the exit code
            [sys.executable, "-W", "error", "-m", "redis_worker", name, "--input", key, *arguments],
            env=os.environ | {"REDIS_URL": server.url},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


class Pauses(Observer):
    """Counts what it is told of pauses."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    def paused(self) -> None:
        self.begun += 1

    def resumed(self) -> None:
        self.ended += 1


# --- pause and resume ---


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
async def test_a_paused_queue_keeps_its_tasks_until_it_is_resumed(
    server: EmbeddedServer, queue: Queue, delivery: str
) -> None:
    names, pauses = (server.url, queue.keys.waiting, queue.keys.output, "list", "sum"), Pauses()
    async with (
        QueueControl(server.url, queue.keys.waiting) as control,
        WorkerPool(*names, delivery=delivery, max_tasks=len(TASKS), observers=[pauses]) as pool,
    ):
        assert await control.pause()
        assert not await control.pause()
        await wait_until(lambda: pauses.begun)
        await queue.push(*TASKS)
        burst = await start_worker_pool(*names, delivery=delivery, burst=True)
        assert burst.claimed == pool.counters.claimed == 0
        assert await queue.waiting() == TASKS
        assert await control.resume()
        assert not await control.resume()
        await wait_until(lambda: queue.answered(len(TASKS)))
    assert (pauses.begun, pauses.ended) == (1, 1)


@pytest.mark.parametrize("tried", [False, True], ids=["", "some were tried before"])
async def test_what_a_blocking_pop_brings_after_a_pause_goes_back_in_order(
    server: EmbeddedServer, queue: Queue, tried: bool
) -> None:
    names, pauses = (server.url, queue.keys.waiting, queue.keys.output, "list", "sum"), Pauses()
    async with WorkerPool(*names, max_tasks=len(TASKS), observers=[pauses]) as pool:
        if tried:
            await queue.redis.hset(queue.keys.attempts, "d", 1)
        await wait_until(lambda: _a_pop_waits(queue), "it to wait in its pop")
        # Together, so that the pop brings one and the claim behind it finds the pause.
        async with queue.redis.pipeline(transaction=True) as pipeline:
            pipeline.set(queue.keys.paused, "by hand").rpush(queue.keys.waiting, *TASKS)
            await pipeline.execute()
        await wait_until(lambda: pauses.begun)
        assert await queue.waiting() == TASKS
        assert await queue.inflight() == []
        assert pool.counters.claimed == 0
        await queue.redis.delete(queue.keys.paused, queue.keys.attempts)
        await wait_until(lambda: queue.answered(len(TASKS)))
    assert pool.counters.redelivered == 0


async def _a_pop_waits(queue: Queue) -> bool:
    return any(client["cmd"] == "blmove" and "b" in client["flags"] for client in await queue.redis.client_list())


async def test_running_tasks_finish_and_new_workers_respect_the_pause(
    queue: Queue, worker: Callable[..., WorkerProcess], command: Command, tmp_path: Path
) -> None:
    await queue.push_tasks([[str(tmp_path)]] * 2)
    first = worker("-c", "1", processor="tests.processors:gate")
    await wait_until((tmp_path / "running").exists)
    paused = command("pause")
    assert (paused.returncode, paused.stderr) == (0, "")
    key = queue.keys.waiting
    assert paused.stdout == f"{key} is paused; to continue: redis-worker resume --input {key}\n"
    again = command("pause")
    assert (again.returncode, again.stdout) == (0, f"{key} was already paused\n")
    (tmp_path / "open").touch()
    await wait_until(lambda: queue.answered(1))
    await wait_until(lambda: "is paused: nothing is claimed" in first.log)
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0
    second = worker("--max-tasks", "1", processor="tests.processors:gate")
    await wait_until(lambda: "is paused: nothing is claimed" in second.log)
    assert len(await queue.waiting()) == 1
    assert command("resume").stdout == f"{key} is resumed\n"
    await wait_until(lambda: queue.answered(2))
    assert await second.ended() == 0
    resumed = command("resume")
    assert (resumed.returncode, resumed.stdout) == (0, f"{key} was not paused\n")


async def test_a_topic_can_be_paused_and_delayed_messages_come_due_meanwhile(
    server: EmbeddedServer, topic: Topic, command: Command
) -> None:
    handled: list[Any] = []
    pauses = Pauses()
    worker = TopicWorker(server.url, observers=[pauses])

    @worker.handler(topic.name)
    async def handle(message: Message) -> None:
        handled.append(message.data)

    async with worker, Publisher(server.url) as publisher:
        assert command("pause", key=topic.keys.waiting).returncode == 0
        await publisher.publish(topic.name, "later", delay=0.1)
        await wait_until(lambda: pauses.begun)
        await wait_until(topic.waiting)
        assert not handled
        assert command("resume", key=topic.keys.waiting).returncode == 0
        await wait_until(lambda: handled == ["later"])


# --- peek and purge ---


async def test_peek_prints_tasks_as_they_are_and_takes_none(queue: Queue, command: Command) -> None:
    nothing = command("peek")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "no waiting tasks\n")
    raws = ['{"id": "é",  "task":[1]}'.encode(), b'\xff{"id":2}', *TASKS]
    await queue.push(*raws)
    shown = command("peek", "-n", "2")
    assert (shown.returncode, shown.stderr) == (0, "5 more waiting\n")
    assert shown.stdout == '{"id": "é",  "task":[1]}\n\\xff{"id":2}\n'
    assert command("peek").stderr == "0 more waiting\n"
    assert await queue.waiting() == raws


async def test_peek_shows_what_workers_hold(queue: Queue, command: Command) -> None:
    assert command("peek", "--inflight").stderr == "no tasks in flight\n"
    for worker, some in (("one", TASKS[:2]), ("two", TASKS[2:3])):
        await queue.redis.zadd(queue.keys.workers, {worker: 4e12})
        await hold(queue.redis, queue.keys, worker, *some)
    shown = command("peek", "--inflight", "-n", "2")
    assert (shown.returncode, shown.stderr) == (0, "1 more in flight\n")
    assert shown.stdout.encode().splitlines() == TASKS[:2]
    keys = queue.keys
    await queue.redis.delete(keys.workers, keys.inflight("one"), keys.inflight("two"))


async def test_purge_deletes_what_waits_and_nothing_else(
    queue: Queue, worker: Callable[..., WorkerProcess], command: Command, tmp_path: Path
) -> None:
    await queue.push_tasks([[str(tmp_path)]])
    running = worker("-c", "1", "--max-tasks", "1", processor="tests.processors:gate")
    await wait_until((tmp_path / "running").exists)
    await queue.push(*TASKS)
    await queue.redis.zadd(queue.keys.delayed, {b"x:" + TASKS[0]: 4e12})
    await queue.redis.rpush(queue.keys.dead, "letter")
    purged = command("purge", "--yes")
    assert (purged.returncode, purged.stdout) == (0, "5 tasks deleted\n")
    assert command("purge", "--yes").stdout == "0 tasks deleted\n"
    assert await queue.redis.zcard(queue.keys.delayed) == await queue.redis.llen(queue.keys.dead) == 1
    (tmp_path / "open").touch()
    await wait_until(lambda: queue.answered(1))
    assert await running.ended() == 0
    await queue.redis.delete(queue.keys.delayed, queue.keys.dead)


async def test_purge_without_a_terminal_wants_a_yes(queue: Queue, command: Command) -> None:
    await queue.push(*TASKS)
    refused = command("purge")
    assert refused.returncode == 2
    assert "use --yes" in refused.stderr
    assert await queue.waiting() == TASKS


@pytest.mark.parametrize(("answer", "left"), [("n", TASKS), ("y", [])])
async def test_purge_asks_at_a_terminal(server: EmbeddedServer, queue: Queue, answer: str, left: list[bytes]) -> None:
    await queue.push(*TASKS)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    purge = (sys.executable, "-m", "redis_worker", "purge", "--url", server.url, "--input", queue.keys.waiting)
    try:
        ended = subprocess.run(purge, cwd=ROOT, stdin=theirs, capture_output=True, text=True, timeout=60)  # noqa: PLW1510
    finally:
        os.close(ours)
        os.close(theirs)
    assert f"Delete 5 waiting tasks of {queue.keys.waiting}?" in ended.stdout + ended.stderr
    assert (ended.returncode == 0) == (not left)
    assert await queue.waiting() == left


@pytest.mark.parametrize("name", ["peek", "purge"])
async def test_what_is_no_list_is_left_alone(queue: Queue, command: Command, name: str) -> None:
    await queue.redis.set(queue.keys.waiting, "precious")
    ended = command(name, *(["--yes"] if name == "purge" else []))
    assert ended.returncode == 3
    assert "a key holds another type than it should" in ended.stderr
    assert await queue.redis.get(queue.keys.waiting) == b"precious"


def test_no_server(command: Command) -> None:
    ended = command("pause", "--url", "redis://:secret@127.0.0.1:1")
    assert ended.returncode == 3
    assert "no Redis at redis://" in ended.stderr
    assert "secret" not in ended.stderr


# --- what runs ---


async def _inner(gate: asyncio.Event) -> None:
    await gate.wait()


async def test_running_tasks_show_where_a_coroutine_stands(server: EmbeddedServer, queue: Queue) -> None:
    gate = asyncio.Event()

    async def outer(arguments: list[Any]) -> None:
        await _inner(gate)

    async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", outer, max_tasks=2) as pool:
        assert pool.running_tasks() == []
        await queue.push_tasks([["secret"]] * 2)
        await wait_until(lambda: pool.running == 2)
        await wait_until(lambda: "gate.wait" in pool.running_tasks()[1].stack)
        first, second = pool.running_tasks()
        assert (first.id, second.id) == ("0", "1")
        assert 0 < second.seconds <= first.seconds < 600
        assert "await _inner(gate)" in first.stack
        assert "engine" not in first.stack
        assert "secret" not in first.stack
        gate.set()
        await wait_until(lambda: queue.answered(2))
        await wait_until(lambda: pool.running_tasks() == [])


async def test_each_thread_is_shown_with_its_own_task(server: EmbeddedServer, queue: Queue) -> None:
    gate = threading.Event()

    def left() -> None:
        gate.wait()

    def right() -> None:
        gate.wait()

    def work(arguments: list[Any]) -> None:
        (left if arguments[0] == "left" else right)()

    names = (server.url, queue.keys.waiting, queue.keys.output, "list", work)
    async with WorkerPool(*names, execution="thread", max_tasks=2) as pool:
        try:
            await queue.push({"id": "l", "task": ["left"]}, {"id": "r", "task": ["right"]})
            await wait_until(lambda: [task.stack.count("gate.wait()") for task in pool.running_tasks()] == [1, 1])
            stacks = {task.id: task.stack for task in pool.running_tasks()}
            assert ", in left\n" in stacks["l"]
            assert ", in right\n" in stacks["r"]
        finally:
            gate.set()
        await wait_until(lambda: queue.answered(2))


async def test_a_thread_past_its_time_limit_has_a_stack_and_a_process_has_none(
    server: EmbeddedServer, queue: Queue
) -> None:
    gate = threading.Event()
    keys = (server.url, queue.keys.waiting, queue.keys.output, "list")
    async with WorkerPool(*keys, lambda _: gate.wait(), execution="thread", timeout=0.1, max_tasks=1) as pool:
        try:
            await queue.push_tasks([[1]])
            await wait_until(lambda: queue.answered(1))
            [task] = pool.running_tasks()
            assert task.id == "0"
            assert "gate.wait()" in task.stack
        finally:
            gate.set()
    async with WorkerPool(*keys, "tests.processors:in_process", max_tasks=1) as pool:
        await queue.push_tasks([["sleep", 0.3]], first=1)
        await wait_until(lambda: [(task.id, task.stack) for task in pool.running_tasks()] == [("1", "")])
        await wait_until(lambda: queue.answered(2))


@pytest.mark.parametrize("size", [1, 2])
async def test_sigusr1_logs_what_runs_in_every_worker_process(
    queue: Queue, worker: Callable[..., WorkerProcess], tmp_path: Path, size: int
) -> None:
    options = ("-w", str(size), "-c", "1", "--max-tasks", "1", "--log-level", "warning")
    process = worker(*options, processor="tests.processors:gate")
    await queue.push_tasks([[str(tmp_path)]] * size)
    pids = tmp_path / "running"
    await wait_until(lambda: pids.exists() and len(pids.read_text().split()) == size)
    for asked in (1, 2):
        process.signal(signal.SIGUSR1)
        await wait_until(lambda asked=asked: process.log.count("1 task is running") == asked * size)
    await wait_until(lambda: process.log.count("await asyncio.sleep") == 2 * size)
    if size > 1:
        os.kill(int(pids.read_text().split()[0]), signal.SIGUSR1)  # one member alone
        await wait_until(lambda: process.log.count("1 task is running") == 2 * size + 1)
    for id in range(size):
        assert f"task {id} has been running for " in process.log
    assert str(tmp_path) not in process.log
    (tmp_path / "open").touch()
    await wait_until(lambda: queue.answered(size))
    assert await process.ended() == 0, process.log[-3000:]
