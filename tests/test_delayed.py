"""Tasks and messages that are put off: listed, cancelled, and done at once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_worker import Publisher, Refused, TaskClient, TopicWorker, WorkerPool
from redis_worker.broker.client.delayed_tasks import DelayedTasks
from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, ROOT, Queue, Topic, wait_until
from tests.test_servers import Cluster, cluster_nodes


@pytest.fixture
def client(server: EmbeddedServer, queue: Queue) -> TaskClient:
    return TaskClient(server.url, queue.keys.waiting, queue.keys.output)


async def put_off(queue: Queue) -> list[str]:
    """The ids of what is put off, in order of their time."""
    members = await queue.redis.zrange(queue.keys.delayed, 0, -1)
    return [str(json.loads(member.partition(b":")[2])["id"]) for member in members]


async def test_cancelling_takes_exactly_the_tasks_of_an_id(
    server: EmbeddedServer, client: TaskClient, queue: Queue
) -> None:
    ids: list[str | int] = ["1", "11", 2, "a b", "a*b", "[a]", 'quo"te', "日本", "back\\slash", "x:y", "", "r7"]
    for id in ids:
        await client.submit(["r7", 1, id], id, delay=600)
    await client.push_raw([b'{ "task" : 1, "id" : "r7" }', json.dumps({"id": "日本", "task": 2}).encode()], delay=60)
    await client.push_raw([b'{"id":"r7","task":1}'] * 2, delay=70)  # the same bytes twice
    await client.push_raw([b"no task: r7", b"\xff r7"], delay=80)
    total = len(ids) + 6
    assert not await client.cancel("never")
    assert not await client.cancel("r")
    for left, id in enumerate(reversed(ids)):
        assert await client.cancel(id) is True
        assert await client.cancel(id) is False
        async with DelayedTasks(server.url, queue.keys.waiting) as delayed:
            assert await delayed.here.find([str(id)]) == []
        assert await queue.redis.zcard(queue.keys.delayed) >= total - 6 - left - 1
    assert await queue.redis.zcard(queue.keys.delayed) == 2
    assert await queue.waiting() == []
    await queue.redis.delete(queue.keys.delayed)
    await client.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.one_of(st.text(max_size=4), st.integers(-5, 200), st.sampled_from("ab*?[]{}:\\\"'é")), max_size=12),
    chosen=st.integers(0, 11),
    ascii=st.booleans(),
)
async def test_whatever_ids_look_like(server: EmbeddedServer, ids: list[str | int], chosen: int, ascii: bool) -> None:
    """Whatever JSON writer wrote them: what has the id goes, and nothing else."""
    ids = [id for id in ids if isinstance(id, int) or id.isprintable()]
    async with TaskClient(server.url, "hypo:in", "hypo:out") as client:
        raws = [json.dumps({"id": id, "task": n}, ensure_ascii=ascii).encode() for n, id in enumerate(ids)]
        if not raws:
            return
        await client.push_raw(raws, delay=600)
        id = ids[chosen % len(ids)]
        async with DelayedTasks(server.url, "hypo:in") as queue:
            found = await queue.here.find([str(id)])
            assert len(found) == [str(other) for other in ids].count(str(id))
            assert await queue.here.drop(found) == len(found)
            left = Counter(task.id for task in await queue.here.all())
            assert left == Counter(str(other) for other in ids if str(other) != str(id))
            await queue.here.drop(await queue.here.all())
            assert await queue.here.count() == 0


async def test_a_task_is_cancelled_or_done_and_never_both(
    server: EmbeddedServer, client: TaskClient, queue: Queue
) -> None:
    """Many thousands are put off, some come due meanwhile, and none is missed because of it."""
    total = 3000
    raws = [json.dumps({"id": id, "task": [1]}).encode() for id in range(total)]
    for start in range(0, total, 500):
        await client.push_raw(raws[start : start + 500], delay=0.5 + start / 500)
    pool = WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", "sum")
    cancelled: set[int] = set()
    async with pool:
        for id in range(0, total, 10):
            if await client.cancel(id):
                cancelled.add(id)
        await wait_until(lambda: queue.answered(total - len(cancelled)))
    done = {int(id) for id in await queue.results()}
    assert not done & cancelled
    assert done | cancelled == set(range(total))
    assert cancelled, "none was cancelled in time"
    await client.close()


async def test_the_retries_of_what_is_cancelled_are_forgotten(
    server: EmbeddedServer, client: TaskClient, queue: Queue
) -> None:
    raw = b'{"id":"r1","task":[-1]}'
    names = (server.url, queue.keys.waiting, queue.keys.output, "list", "fibonacci")
    async with WorkerPool(*names, retries=5, retry_backoff=600, retry_backoff_max=600):
        await queue.push(raw)
        await wait_until(lambda: queue.redis.zcard(queue.keys.delayed))
        assert await queue.redis.exists(queue.keys.attempts)
        assert await client.cancel("r1")
    assert not await queue.redis.exists(queue.keys.attempts)
    assert await queue.ledger() == {}
    await client.close()


async def test_a_reminder_that_must_not_go(server: EmbeddedServer, topic: Topic) -> None:
    handled: list[str] = []
    worker = TopicWorker(server.url)

    @worker.handler(topic.name)
    async def remind(message: Any) -> None:
        handled.append(message.id)

    async with Publisher(server.url) as publisher, worker:
        await publisher.publish(topic.name, 1, delay=600, id="paid")
        await publisher.publish(topic.name, 1, delay=1, id="open")
        await publisher.publish(topic.name, 1, delay=600, id=7)
        assert await publisher.cancel(topic.name, "paid") is True
        assert await publisher.cancel(topic.name, "paid") is False
        await wait_until(lambda: handled)
        async with DelayedTasks(server.url, topic.keys.waiting) as queue:
            assert await queue.here.run(await queue.here.all()) == 1
        await wait_until(lambda: len(handled) == 2)
        assert await publisher.cancel(topic.name, 7) is False
    assert handled == ["open", "7"]


async def test_what_the_queue_refuses_stays_put_off(server: EmbeddedServer, client: TaskClient, queue: Queue) -> None:
    await client.submit(1, "t1", delay=600)
    await queue.redis.set(queue.keys.waiting, "no list")
    async with DelayedTasks(server.url, queue.keys.waiting) as delayed:
        with pytest.raises(Refused):
            await delayed.here.run(await delayed.here.all())
    assert await put_off(queue) == ["t1"]
    await queue.redis.delete(queue.keys.waiting, queue.keys.delayed)
    await client.close()


async def test_in_a_cluster(first_server: EmbeddedServer) -> None:
    """And its connections that have ended while they were idle are replaced."""
    with cluster_nodes(first_server.binary, 3) as nodes:
        cluster = Cluster(nodes)
        async with TaskClient(cluster.url, "c:in", "c:out") as client, Publisher(cluster.url) as publisher:
            for _ in range(3):
                await client.submit(1, "t1", delay=600)
                await publisher.publish("c.topic", 1, delay=600, id="m1")
                for node in nodes:
                    await _kill_clients(node.url)
                assert await client.cancel("t1") is True
                assert await client.cancel("t1") is False
                assert await publisher.cancel("c.topic", "m1") is True
                time.sleep(0.01)  # the event loop has not heard of the ends
            await client.submit(1, "t2", delay=600)
            async with DelayedTasks(cluster.url, "c:in") as queue:
                [task] = await queue.here.first(5)
                assert (task.id, await queue.here.run([task]), await queue.here.count()) == ("t2", 1, 0)
                assert await queue.meant("c.topic") == "mq:c.topic"
                assert await queue.meant("c:in") is None


async def _kill_clients(url: str) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(url) as redis:
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@pytest.fixture
def command(server: EmbeddedServer, queue: Queue) -> Callable[..., subprocess.CompletedProcess[str]]:
    def command(*arguments: str, key: str = queue.keys.waiting, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - the tests look at the exit code
            [sys.executable, "-m", "redis_worker", *arguments, "--input", key],
            env=os.environ | {"REDIS_URL": server.url},
            cwd=ROOT,
            input=answer,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return command


async def test_from_the_command_line(client: TaskClient, queue: Queue, command: Any) -> None:
    for number in range(5):
        await client.submit("\n\x1b[31m", f"t{number}", delay=600 + number)
    raw = b'{"id":"bad\\nid","task":1,\n"x":"\\u001b[31m"}'
    await client.push_raw([raw], delay=900)

    done = await asyncio.to_thread(command, "delayed", "list")
    assert (done.returncode, done.stderr) == (0, "6 of 6 delayed tasks\n")
    assert [line.split()[2] for line in done.stdout.splitlines()] == [*(f"t{n}" for n in range(5)), "bad\\nid"]
    assert "\x1b" not in done.stdout

    done = await asyncio.to_thread(command, "delayed", "list", "--json", "-n", "2", "--id", "t3", "--id", "never")
    assert (done.returncode, done.stderr) == (1, "1 of 6 delayed tasks\nno delayed task never\n")
    shown = json.loads(done.stdout)
    assert shown["id"] == "t3"
    assert abs(shown["due"] - time.time() - 603) < PATIENCE
    assert json.loads(shown["raw"])["task"] == "\n\x1b[31m"

    await queue.redis.zadd(queue.keys.delayed, {b"token:\xff": 1})
    done = await asyncio.to_thread(command, "delayed", "list", "--json", "-n", "1")
    assert json.loads(done.stdout) == {"id": None, "due": 0.001, "raw_base64": "/w=="}
    await queue.redis.zrem(queue.keys.delayed, b"token:\xff")

    done = await asyncio.to_thread(command, "delayed", "cancel", "--id", "t3", "--json")
    assert (done.returncode, done.stdout) == (0, '{"cancelled":1}\n')
    done = await asyncio.to_thread(command, "delayed", "cancel", "--id", "t3")
    assert (done.returncode, done.stdout, done.stderr) == (1, "0 tasks cancelled\n", "no delayed task t3\n")

    done = await asyncio.to_thread(command, "delayed", "run", "--id", "t1")
    assert (done.returncode, done.stdout) == (0, "1 task due now\n")
    assert [json.loads(raw)["id"] for raw in await queue.waiting()] == ["t1"]

    done = await asyncio.to_thread(command, "delayed", "cancel", "--all", answer="n\n")
    assert (done.returncode, len(await put_off_all(queue))) == (130, 4)
    done = await asyncio.to_thread(command, "delayed", "run", "--all")
    assert (done.returncode, done.stdout) == (0, "4 tasks due now\n")
    assert [json.loads(raw)["id"] for raw in await queue.waiting()] == ["t1", "t0", "t2", "t4", "bad\nid"]
    done = await asyncio.to_thread(command, "delayed", "cancel", "--all", "--yes")
    assert (done.returncode, done.stdout) == (0, "0 tasks cancelled\n")
    for arguments in (("cancel",), ("run", "--all", "--id", "t1")):
        done = await asyncio.to_thread(command, "delayed", *arguments)
        assert (done.returncode, "select with" in done.stderr) == (2, True)
    await client.close()


async def put_off_all(queue: Queue) -> list[bytes]:
    return list(await queue.redis.zrange(queue.keys.delayed, 0, -1))
