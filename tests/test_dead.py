"""Dead letters, from the command line: seen, put back, thrown away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from redis_worker import Message, TopicWorker, WorkerPool, start_worker_pool
from redis_worker.embedded import EmbeddedServer
from tests.support import ROOT, Queue, Topic, wait_until


@pytest.fixture
def dead(server: EmbeddedServer, queue: Queue) -> Any:
    def dead(command: str, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - the tests look at the exit code
            [sys.executable, "-m", "redis_worker", "dead", command, "--input", queue.keys.waiting, *arguments],
            env=os.environ | {"REDIS_URL": server.url},
            cwd=ROOT,
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return dead


RAWS = [
    b'{"task": [-1],  "id":"t1", "note":"\xc3\xa9"}',
    b'{"id":2,"task":["x"]}',
    b'\xff{"id":3}',
    b'{"id":"t1","task":[-1]}',
]


@pytest.fixture
async def letters(server: EmbeddedServer, queue: Queue) -> None:
    """Four dead letters, one of them unreadable."""
    await queue.push(*RAWS)
    names = (server.url, queue.keys.waiting, queue.keys.output, "list")
    async with WorkerPool(*names, "fibonacci", 1, retries=1, retry_backoff=0.01):
        await wait_until(lambda: _all_dead(queue))


async def _all_dead(queue: Queue) -> bool:
    return len(await queue.dead()) == len(RAWS)


@pytest.mark.usefixtures("letters")
async def test_requeued_after_a_fix_a_task_succeeds_byte_for_byte(
    server: EmbeddedServer, queue: Queue, dead: Any
) -> None:
    done = dead("requeue", "--all")
    assert (done.returncode, done.stdout) == (0, f"4 tasks are back on the queue {queue.keys.waiting}\n")
    assert sorted(await queue.waiting()) == sorted(RAWS)
    assert await queue.dead() == []
    names = (server.url, queue.keys.waiting, queue.keys.output, "list")
    await start_worker_pool(*names, lambda arguments: "fixed", burst=True)
    assert {result["result"] for result in (await queue.results()).values()} == {"fixed"}
    assert [letter["attempts"] for letter in await queue.dead()] == [1]  # the unreadable one is so again


@pytest.mark.usefixtures("letters")
async def test_list_and_show(queue: Queue, dead: Any) -> None:
    listed = dead("list")
    assert listed.returncode == 0
    assert len(listed.stdout.splitlines()) == 4
    assert "4 of 4 dead letters" in listed.stderr
    assert "fibonacci takes a positive integer" in listed.stdout
    assert len(dead("list", "-n", "1").stdout.splitlines()) == 1
    shown = [json.loads(line) for line in dead("show", "--id", "t1").stdout.splitlines()]
    assert {letter["raw"].encode() for letter in shown} == {RAWS[0], RAWS[3]}
    assert {letter["attempts"] for letter in shown} == {2}
    assert dead("show", "--id", "nobody").returncode == 1


@pytest.mark.usefixtures("letters")
async def test_some_are_chosen_by_id_or_reason(queue: Queue, dead: Any) -> None:
    assert dead("requeue", "--id", "2").returncode == 0
    assert await queue.waiting() == [RAWS[1]]
    assert dead("purge", "--reason", "not JSON", "--yes").stdout == "1 dead letters deleted\n"
    assert {letter["id"] for letter in await queue.dead()} == {"t1"}
    assert dead("requeue", "--id", "nobody").returncode == 1


@pytest.mark.usefixtures("letters")
async def test_purge_asks(queue: Queue, dead: Any) -> None:
    refused = dead("purge", "--all", answer="n\n")
    assert refused.returncode != 0
    assert len(await queue.dead()) == 4
    assert "Delete 4 dead letters" in refused.stdout + refused.stderr
    assert dead("purge", "--all", answer="y\n").returncode == 0
    assert await queue.dead() == []


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_message_of_a_topic_comes_back_too(
    server: EmbeddedServer, topic: Topic, dead: Any, idempotent: bool
) -> None:
    raw = b'{"published_at": 1.50, "data": {"n":  1}, "id":"m1", "note":"\xc3\xa9"}'
    is_fixed = False
    done: list[Message] = []

    async def handle(message: Message) -> None:
        if not is_fixed:
            raise ValueError("no luck")
        done.append(message)

    def worker() -> TopicWorker:
        worker = TopicWorker(server.url)
        worker.handler(topic.name, retries=0, idempotent=idempotent)(handle)
        return worker

    await topic.push(raw)
    async with worker():
        await wait_until(topic.dead)
    keys = ("--input", topic.keys.waiting)
    assert " m1 " in dead("list", *keys).stdout
    assert json.loads(dead("show", *keys, "--id", "m1").stdout)["raw"].encode() == raw
    assert dead("requeue", *keys, "--all").returncode == 0
    assert await topic.waiting() == [raw]
    assert await topic.dead() == []
    is_fixed = True
    async with worker():
        await wait_until(lambda: done)
    assert done == [Message("m1", topic.name, {"n": 1}, 1.5)]
    assert await topic.dead() == []


@pytest.mark.parametrize("command", ["requeue", "purge"])
def test_which_ones_must_be_said(dead: Any, command: str) -> None:
    done = dead(command)
    assert done.returncode == 2
    assert "--id ID, --reason TEXT, or --all" in done.stderr
