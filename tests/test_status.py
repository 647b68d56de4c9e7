"""The status of queues and workers, as `redis-worker status` shows it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Message, Publisher, Refused, TaskClient, TopicWorker, WorkerPool, __version__
from redis_worker.broker.keys import PROCESSES, QUEUES, TOPICS
from redis_worker.broker.operator.announcing import process_name
from redis_worker.broker.operator.status import QueueStatus, Status, StatusReader
from redis_worker.broker.operator.worker_status import TaskStatus, WorkerStatus
from redis_worker.cli.tables import plain, tables
from redis_worker.embedded import EmbeddedServer
from tests.queue_calls.members import now
from tests.support import PATIENCE, ROOT, Queue, Topic, WorkerProcess, wait_until
from tests.test_cli import Terminal

Command = Callable[..., "subprocess.CompletedProcess[str]"]
GATE = "tests.processors:gate"


@pytest.fixture
async def reader(server: EmbeddedServer, queue: Queue) -> AsyncIterator[StatusReader]:
    """Reads the status of the test's own queue."""
    async with StatusReader(server.url, [queue.keys.waiting]) as reader:
        yield reader


@pytest.fixture
def status(server: EmbeddedServer) -> Command:
    def status(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - the tests look at the exit code
            [sys.executable, "-W", "error", "-m", "redis_worker", "status", *arguments],
            env={"REDIS_URL": server.url, **os.environ},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return status


async def seen(reader: StatusReader, condition: Callable[[Status], Any]) -> Status:
    """The first status for which `condition` holds."""

    async def look() -> Status | None:
        status = await reader.read()
        return status if condition(status) else None

    found = await wait_until(look, "a status")
    assert isinstance(found, Status)
    return found


def described(count: int) -> Callable[[Status], bool]:
    """Whether so many workers have said what they are."""
    return lambda status: sum(worker.host is not None for worker in status.workers) == count


async def hold(arguments: list[Any]) -> None:
    await asyncio.sleep(PATIENCE * 10)


async def test_what_runs_and_for_how_long(server: EmbeddedServer, queue: Queue, reader: StatusReader) -> None:
    names = (server.url, queue.keys.waiting, queue.keys.output)
    pushed = await now(queue.redis) / 1e6
    await queue.push({"id": 1, "task": []}, {"id": "big", "task": ["x" * 100_000]})
    await queue.push(b'{"id":"\\u001b[31m","task":[10000000000000000000000]}', {"id": "last", "task": []})
    pool = WorkerPool(*names, "list", hold, 3, shutdown_timeout=0)
    async with pool:
        first = await seen(reader, lambda status: any(len(worker.tasks) == 3 for worker in status.workers))
        [worker], [about] = first.workers, first.queues
        assert [task.id for task in worker.tasks] == ["1", None, "\x1b[31m"]
        assert (worker.alive, worker.running, worker.in_flight, worker.concurrency) == (True, 3, 3, 3)
        assert (worker.host, worker.pid, worker.version) == (socket.gethostname(), os.getpid(), __version__)
        assert (worker.queue, worker.processor) == (queue.keys.waiting, "hold")
        assert (about.name, about.waiting, about.in_flight, about.workers) == (queue.keys.waiting, 1, 3, 1)
        age = worker.tasks[0].seconds
        second = await seen(reader, lambda status: status.workers[0].tasks[0].seconds > age)
        assert 0 < age < second.workers[0].tasks[0].seconds <= second.at - pushed + 0.01
        assert second.workers[0].started_at == worker.started_at
    assert (await reader.read()).workers == []
    assert len(await queue.waiting()) == 4
    assert set(await queue.redis.keys()) == {QUEUES.encode(), queue.keys.waiting.encode()}


async def test_a_killed_worker_is_stale_until_another_reclaims_it(
    queue: Queue, worker: Callable[..., WorkerProcess], reader: StatusReader, status: Command, tmp_path: Path
) -> None:
    await queue.push({"id": "long", "task": [str(tmp_path)]})
    killed = worker("--lease", "2", processor=GATE)
    await seen(reader, lambda status: any(worker.tasks for worker in status.workers))
    killed.kill()
    found = await seen(reader, lambda status: not status.workers[0].alive)
    assert (found.workers[0].pid, found.workers[0].lease <= 0, found.queues[0].workers) == (killed.pid, True, 0)
    assert [task.id for task in found.workers[0].tasks] == ["long"]
    shown = status("--input", queue.keys.waiting)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line.split()[0] for line in shown.stdout.splitlines() if str(killed.pid) in line] == ["stale"]
    (tmp_path / "open").touch()
    other = worker("--lease", "2", processor=GATE)
    await seen(reader, lambda status: [worker.pid for worker in status.workers] == [other.pid])
    await wait_until(lambda: queue.answered(1))
    other.signal(signal.SIGTERM)
    assert await other.ended() == 0


async def test_a_worker_that_was_presumed_dead_says_nothing_under_its_old_name(
    server: EmbeddedServer, queue: Queue, reader: StatusReader
) -> None:
    async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", "sum"):
        [before] = (await seen(reader, described(1))).workers
        await queue.redis.zrem(queue.keys.claimants, before.name)
        await queue.redis.zrem(queue.keys.workers, before.name)
        [after] = (await seen(reader, lambda status: status.workers and status.workers[0].host)).workers
        assert after.name != before.name
        assert await queue.redis.hkeys(queue.keys.presence) == [after.name.encode()]
    await queue.redis.delete(queue.keys.retired)


async def test_the_consumers_of_topics(server: EmbeddedServer, topic: Topic) -> None:
    gate = asyncio.Event()
    worker = TopicWorker(server.url)

    @worker.handler(f"{topic.name}.single", concurrency=1)
    async def remind(message: Message) -> None:
        await gate.wait()

    @worker.batch_handler(f"{topic.name}.batch", size=2)
    async def write(messages: list[Message]) -> None:
        await gate.wait()

    async with Publisher(server.url) as publisher, worker, StatusReader(server.url) as reader:
        await publisher.publish(f"{topic.name}.single", 1, id="m1")
        await publisher.publish_many(f"{topic.name}.batch", [1, 2])
        found = await seen(reader, lambda status: sum(len(worker.tasks) for worker in status.workers) == 3)
        batch, single = found.workers
        assert (batch.processor, batch.running, batch.concurrency, batch.in_flight) == ("write", 1, 1, 2)
        assert (single.processor, single.running, single.queue) == ("remind", 1, f"mq:{topic.name}.single")
        assert [task.id for task in single.tasks] == ["m1"]
        assert [queue.name for queue in found.queues] == [batch.queue, single.queue]
        gate.set()
    assert await topic.redis.keys() == [TOPICS.encode()]


async def test_a_user_with_rights_to_the_queue_alone(server: EmbeddedServer, queue: Queue) -> None:
    """Its pool is not in the registry, and works; it can look at its own queue."""
    stem = queue.keys.waiting.removesuffix(":in")
    await queue.redis.execute_command(
        "ACL", "SETUSER", "ann", "on", ">pass", f"~{stem}:*", f"~{{{stem}:in}}:*", "&*", "+@all"
    )
    url = server.url.replace("://", "://ann:pass@")
    names = (url, queue.keys.waiting, queue.keys.output)
    try:
        async with WorkerPool(*names, "list", "sum"), TaskClient(*names) as client:
            assert await client.run([1, 2], PATIENCE) == 3
            async with StatusReader(url, [queue.keys.waiting]) as reader:
                await seen(reader, described(1))
            async with StatusReader(url) as everything:
                with pytest.raises(Refused, match="the known queues cannot be read, so name some with --input"):
                    await everything.read()
        assert await queue.redis.exists(QUEUES) == 0
    finally:
        await queue.redis.execute_command("ACL", "DELUSER", "ann")


# --- the command ---


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str, stdout: Any = None) -> Terminal:
        opened.append(Terminal(*arguments, stdout=stdout))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


async def test_columns_and_json(server: EmbeddedServer, queue: Queue, reader: StatusReader, status: Command) -> None:
    names = (server.url, queue.keys.waiting, queue.keys.output)
    await queue.redis.set("no-list", 1)
    await queue.redis.sadd(QUEUES, "no-list")
    async with (
        WorkerPool(*names, "list", "sum", dead_limit=1),
        WorkerPool(server.url, "other", "results", "list", "sum", delivery="at-most-once"),
        TaskClient(*names) as client,
    ):
        await client.submit([1], delay=1000)
        await client.push_raw([b'{"id":"a","task":[1]}', b'{"id":"b","task":"x"}', b"unreadable", b"{"])
        found = await seen(reader, lambda status: status.workers and status.workers[0].counters.get("processed") == 4)
        assert (found.queues[0].rate, found.workers[0].counters["failed"]) == (found.workers[0].rate, 3)
        shown = await asyncio.to_thread(status)
        as_json = await asyncio.to_thread(status, "--json", "--input", queue.keys.waiting, "--input", "no-list")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0] == [
        *("queue", "waiting", "delayed", "in", "flight", "dead", "dropped", "rate/s", "workers"),
        "problem",
    ]
    assert lines[1][:9] == ["no-list", *"0000", "0", "0.0", "0", "a"]
    assert "a key holds another type than it should" in shown.stdout.splitlines()[1]
    assert lines[2] == ["other", *"00000", "0.0", "0"]  # a worker without a lease is not seen
    assert lines[3][:6] == [queue.keys.waiting, "0", "1", "0", "1", "1"]
    assert [lines[4], lines[6][0]] == [[], "alive"]
    found_too = json.loads(as_json.stdout)
    assert [(about["name"], about["workers"]) for about in found_too["queues"]] == [
        (queue.keys.waiting, 1),
        ("no-list", 0),
    ]
    assert [worker["pid"] for worker in found_too["workers"]] == [os.getpid()]
    await queue.redis.delete("no-list", queue.keys.delayed, queue.keys.dropped)


async def test_an_idle_worker_is_heard_of_through_its_process(queue: Queue, reader: StatusReader) -> None:
    """Its lease rests for an hour; a worker with a usual lease would show as well if it were silent."""
    redis, keys = queue.redis, queue.keys
    seconds, _ = await redis.time()
    described = {"host": "h", "pid": 1, "version": "1", "processor": "p", "concurrency": 1, "running": 0, "tasks": []}
    described |= {"rate": 0.0, "counters": {}, "started_at": 1.0, "published_at": seconds - 900.0, "process": "its"}
    await redis.hset(keys.presence, "idle", json.dumps(described))
    for heard, rests, expected in ((1, 0.5, True), (60, 0.5, False), (60, 0, True)):
        await redis.zadd(keys.workers, {"idle": (seconds + 3000) * 1000 + rests})
        await redis.zadd(PROCESSES, {"its": (seconds - heard) * 1000})
        status = await reader.read()
        assert [worker.name for worker in status.workers] == ["idle"] * expected
        assert all(heard <= (worker.seen or 0) < heard + 60 for worker in status.workers)
        assert status.queues[0].workers == expected
    await redis.delete(keys.workers, keys.presence, PROCESSES)


async def test_a_worker_of_topics_is_announced_while_it_idles(server: EmbeddedServer, topic: Topic) -> None:
    """It describes itself once, and its process is heard of each second."""
    worker = TopicWorker(server.url)
    worker.handler(topic.name)(_nothing)
    async with worker, StatusReader(server.url, [topic.keys.waiting]) as reader:
        await seen(reader, lambda status: any(worker.lease > 60 and worker.host for worker in status.workers))
        before = await topic.redis.hgetall(topic.keys.presence)
        for _ in range(2):
            beat = await topic.redis.zscore(PROCESSES, process_name())
            await wait_until(lambda beat=beat: _beats_after(topic.redis, beat), "a later beat of the process")
        [shown] = (await reader.read()).workers
        assert shown.seen is not None
        assert await topic.redis.hgetall(topic.keys.presence) == before
    assert not await topic.redis.exists(PROCESSES, topic.keys.presence)


async def _beats_after(redis: Redis, beat: float | None) -> bool:
    return (await redis.zscore(PROCESSES, process_name()) or 0) > (beat or 0)


async def _nothing(message: Message) -> None: ...


async def test_watching_ends_with_ctrl_c(
    server: EmbeddedServer, redis: Redis, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    await redis.sadd(QUEUES, "some")
    watch = ("status", "--watch", "--url", server.url)
    with (tmp_path / "out").open("w+") as file:
        shown, as_json = terminal(*watch), terminal(*watch, "--json", stdout=file)
        await wait_until(lambda: shown.shown.count("waiting") >= 2)
        await wait_until(lambda: len((tmp_path / "out").read_text().splitlines()) >= 2)
    for each in (shown, as_json):
        each.interrupt()
        assert await each.ended() == 0
    found = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert {status["queues"][0]["name"] for status in found} == {"some"}


async def test_the_queue_of_the_environment(redis: Redis, status: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_WORKER_INPUT", "a queue")
    await redis.rpush("a queue", "1", "2")
    shown = await asyncio.to_thread(status)
    assert shown.stdout.splitlines()[1].startswith("a queue        2 ")
    assert shown.stdout.splitlines()[-1] == "no workers"
    await redis.delete("a queue")


def test_no_server(status: Command) -> None:
    ended = status("--url", "redis://:secret@127.0.0.1:1")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "cannot read the status: no Redis at redis://:***@127.0.0.1:1" in ended.stderr


@pytest.mark.parametrize(("queues", "workers"), [(0, 0), (1, 200), (200, 1), (300, 300), (2, 3)])
def test_tables_are_no_longer_than_a_screen(queues: int, workers: int) -> None:
    # Only the last queues are not idle.
    some = [QueueStatus(f"q{n:03}", waiting=int(n >= queues - 2)) for n in range(queues)]
    others = [WorkerStatus(f"q{n:03}", "w", n > 0, 1.0, 0) for n in range(workers)]
    shown = tables(Status(1.0, some, others), 24)
    text = "\n\n".join(map(plain, shown))
    assert len(text.splitlines()) <= 24
    assert sum(len(table.rows) for table in shown) == min(18, queues + workers)
    if queues:
        assert f"q{queues - 1:03}" in [row[0] for row in shown[0].rows]
    if workers:
        assert shown[1].rows[0][0] == "stale"
    assert ("more queue" in text) == (queues > len(shown[0].rows))
    assert ("more worker" in text) == (workers > len(shown[1].rows))


def test_what_others_have_written_is_shown_safely_and_no_wider_than_a_terminal() -> None:
    evil = WorkerStatus("q\x1b[31m\n", "w" * 100, True, 1.0, 1, tasks=[TaskStatus("\x1b]0;x", 130)])
    [_, shown] = tables(Status(1.0, [], [evil]), 24)
    assert shown.rows[0][1:5] == ["w" * 39 + "…", r"q\u001b[31m\n", "0/?", r"2m \u001b]0;x"]
    for width in (10, 60, 80, 100):
        assert max(map(len, plain(shown.within(width)).splitlines())) <= width
