"""The name of a topic, and the name of its list: who takes one for the other is told so."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from redis_worker import ConfigurationError, Handlers, Publisher, TopicWorker
from redis_worker.embedded import EmbeddedServer
from redis_worker.file.reading import read_plan
from tests.support import PATIENCE, ROOT, Queue, Topic


@pytest.fixture(scope="session")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


def run(server: EmbeddedServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: PLW1510 - the tests look at the exit code
        [sys.executable, "-m", "redis_worker", *arguments],
        env=os.environ | {"REDIS_URL": server.url},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


async def test_a_list_is_no_topic(server: EmbeddedServer, queue: Queue) -> None:
    """All of them made, or waited for, the list mq:mq:x.y."""
    worker, said = TopicWorker(server.url), r"'mq:x\.[y*]' is the list of the topic 'x\.[y*]'"
    async with Publisher(server.url) as publisher:
        for call in (
            publisher.publish("mq:x.y", 1),
            publisher.publish_many("mq:x.y", [1]),
            publisher.push_raw("mq:x.y", [b"{}"]),
            publisher.cancel("mq:x.y", 1),
            worker.start_consumer("mq:x.y"),
            worker.stop_consumer("mq:x.y"),
        ):
            with pytest.raises(ConfigurationError, match=said):
                await call
    for register in (worker.handler, worker.batch_handler, Handlers().handler):
        for pattern in ("mq:x.y", "mq:x.*"):
            with pytest.raises(ConfigurationError, match=said):
                register(pattern)(print)
    done = await asyncio.to_thread(run, server, "publish", "mq:x.y", "1")
    assert (done.returncode, "without mq:" in done.stderr) == (2, True)
    assert not await queue.redis.exists("mq:mq:x.y")


@pytest.mark.parametrize("pattern", ["mq:x.y", "mq:x.*"])
def test_nor_is_it_one_in_a_file(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="is the list of the topic"):
        read_plan("workers.toml", f'[topics."{pattern}"]\nhandler = "shop:work"\n')


COMMANDS: list[tuple[str, ...]] = [
    ("dead", "list"),
    ("dead", "show"),
    ("dead", "requeue", "--all"),
    ("dead", "purge", "--all"),
    ("peek",),
    ("purge", "--yes"),
    ("pause",),
    ("resume",),
    ("status",),
    ("status", "--json"),
    ("delayed", "list"),
    ("delayed", "cancel", "--id", "x"),
    ("doctor",),
]


@pytest.mark.long  # a process for each command
async def test_a_topic_is_no_list(server: EmbeddedServer, topic: Topic, queue: Queue) -> None:
    """Each command that looks at a queue answered "0 of 0" and no more."""
    topic = Topic(queue.redis, "a.topic")
    async with Publisher(server.url) as publisher:
        await publisher.publish("a.topic", 1)
    hint = "Hint: there is no queue a.topic, but a topic of this name: --input mq:a.topic"

    def hinted(key: str) -> list[tuple[str, ...]]:
        return [command for command in COMMANDS if hint in run(server, *command, "--input", key).stderr.splitlines()]

    assert await asyncio.to_thread(hinted, "a.topic") == COMMANDS
    await topic.redis.delete("{a.topic}:paused")
    for right in ("mq:a.topic", "nothing"):  # where the one function that all of them call says nothing
        assert hint not in (await asyncio.to_thread(run, server, "peek", "--input", right)).stderr
    await queue.redis.rpush("a.topic", "x")  # a queue of the same name
    done: Any = await asyncio.to_thread(run, server, "peek", "--input", "a.topic")
    assert (done.stdout, hint in done.stderr) == ("x\n", False)
    await queue.redis.delete("a.topic", "mq:a.topic", "{mq:a.topic}:paused")
