"""What an operator does to a running system: pause, look, empty, and ask what runs."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redis_worker import Message, Observer, Publisher, TopicWorker, WorkerPool, start_worker_pool
from redis_worker.broker.control import QueueControl
from redis_worker.embedded import EmbeddedServer
from tests.support import ROOT, Queue, Topic, WorkerProcess, wait_until

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
        WorkerPool(*names, delivery=delivery, observers=[pauses]) as pool,
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
    async with WorkerPool(*names, observers=[pauses]) as pool:
        if tried:
            await queue.redis.hset(queue.keys.attempts, "d", 1)
        await asyncio.sleep(0.1)  # so that it is likely to wait in its pop
        await queue.redis.set(queue.keys.paused, "by hand")
        await queue.push(*TASKS)
        await wait_until(lambda: pauses.begun)
        assert await queue.waiting() == TASKS
        assert await queue.inflight() == []
        assert pool.counters.claimed == 0
        await queue.redis.delete(queue.keys.paused, queue.keys.attempts)
        await wait_until(lambda: queue.answered(len(TASKS)))
    assert pool.counters.redelivered == 0


async def test_running_tasks_finish_and_new_workers_respect_the_pause(
    queue: Queue, worker: Callable[..., WorkerProcess], command: Command, tmp_path: Path
) -> None:
    await queue.push_tasks([[str(tmp_path)]] * 2)
    first = worker("-c", "1", processor="tests.processors:gate")
    await wait_until((tmp_path / "running").exists)
    paused = command("pause")
    assert (paused.returncode, paused.stderr) == (0, "")
    key = queue.keys.waiting
    assert paused.stdout == f"{key} is paused; to go on: redis-worker resume --input {key}\n"
    again = command("pause")
    assert (again.returncode, again.stdout) == (0, f"{key} was paused already\n")
    (tmp_path / "open").touch()
    await wait_until(lambda: queue.answered(1))
    await wait_until(lambda: "is paused: nothing is claimed" in first.log)
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0
    second = worker(processor="tests.processors:gate")
    await wait_until(lambda: "is paused: nothing is claimed" in second.log)
    assert len(await queue.waiting()) == 1
    assert command("resume").stdout == f"{key} is resumed\n"
    await wait_until(lambda: queue.answered(2))
    second.signal(signal.SIGTERM)
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
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "nothing waits\n")
    raws = ['{"id": "é",  "task":[1]}'.encode(), b'\xff{"id":2}', *TASKS]
    await queue.push(*raws)
    shown = command("peek", "-n", "2")
    assert (shown.returncode, shown.stderr) == (0, "5 more wait\n")
    assert shown.stdout == '{"id": "é",  "task":[1]}\n\\xff{"id":2}\n'
    assert command("peek").stderr == "0 more wait\n"
    assert await queue.waiting() == raws


async def test_purge_deletes_what_waits_and_nothing_else(
    queue: Queue, worker: Callable[..., WorkerProcess], command: Command, tmp_path: Path
) -> None:
    await queue.push_tasks([[str(tmp_path)]])
    running = worker("-c", "1", processor="tests.processors:gate")
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
    running.signal(signal.SIGTERM)
    assert await running.ended() == 0
    await queue.redis.delete(queue.keys.delayed, queue.keys.dead)


async def test_purge_without_a_terminal_wants_a_yes(queue: Queue, command: Command) -> None:
    await queue.push(*TASKS)
    refused = command("purge")
    assert refused.returncode == 2
    assert "say --yes" in refused.stderr
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
    assert f"Delete 5 tasks that wait in {queue.keys.waiting}?" in ended.stdout + ended.stderr
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
    for name in ("pause", "resume", "peek"):
        ended = command(name, "--url", "redis://:secret@127.0.0.1:1")
        assert ended.returncode == 3
        assert "no Redis at redis://" in ended.stderr
        assert "secret" not in ended.stderr
