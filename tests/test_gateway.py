"""The example of a gateway: ten topics, with its worker and its sender as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from examples.gateway_worker.worker import HANDLED
from redis_worker import Publisher
from redis_worker.broker.keys import PROCESSES, Keys, topic_list
from redis_worker.embedded import HOST, EmbeddedServer
from tests.support import PATIENCE, ROOT, WorkerProcess, held_in, wait_until

# What becomes of the messages of each topic: handled, retried, dead, skipped.
SUMMARY = {
    "audit.login": (0, 0, 1, 0),
    "data.sync": (5, 1, 0, 0),
    "email.send": (3, 0, 0, 3),
    "file.process": (1, 0, 0, 0),
    "inventory.alert": (1, 0, 1, 0),
    "order.reminder": (3, 0, 0, 0),
    "payment.retry": (1, 2, 0, 0),
    "push.notification": (3, 0, 0, 0),
    "sms.send": (1, 0, 0, 0),
    "system.cleanup": (1, 0, 0, 0),
    "user.notification": (3, 0, 0, 0),
}
HANDLED_EACH = {topic: numbers[0] for topic, numbers in SUMMARY.items() if numbers[0]}


class Part(WorkerProcess):
    """`python -m examples.gateway_worker`, whole or in part."""

    def __init__(self, *arguments: str, **env: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "examples.gateway_worker", *arguments],
            cwd=ROOT,
            env=os.environ | env,
            stderr=self._log,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def started(self) -> Part:
        await wait_until(lambda: "at work on" in self.log or not self.alive, "the worker to start")
        assert self.alive, self.log
        return self

    async def summary(self) -> dict[str, tuple[int, ...]]:
        """The table it prints at its end, which has to be a good one."""
        assert await self.ended() == 0, self.log
        assert self.process.stdout is not None
        heading, *lines = self.process.stdout.read().splitlines()
        assert heading.split() == ["topic", "handled", "retried", "dead", "skipped"]
        return {topic: tuple(map(int, numbers)) for topic, *numbers in map(str.split, lines)}

    def close(self) -> None:
        super().close()
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Part]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts parts of the example; those still there at the end are killed."""
    started: list[Part] = []

    def start(*arguments: str, **env: str) -> Part:
        started.append(Part(*arguments, **env))
        return started[-1]

    yield start
    for part in started:
        part.close()


class Topics:
    """What Redis holds of topics and of what the example did."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def handled(self) -> dict[str, int]:
        """How often each message was handled, by its topic, a space and its id."""
        return {field.decode(): int(times) for field, times in (await self._redis.hgetall(HANDLED)).items()}

    async def handled_each(self) -> Counter[str]:
        """How many messages of each topic were handled."""
        return Counter(field.split()[0] for field in await self.handled())

    async def open(self) -> set[str]:
        """The keys of messages that wait, are put off or in flight."""
        keys = {key.decode() async for key in self._redis.scan_iter("*mq:*", count=1000)}
        held = {key for key in keys if "}:inflight" in key and await held_in(self._redis, key)}
        return held | {key for key in keys if key.startswith("mq:") or "}:delayed" in key}

    async def all_settled(self) -> bool:
        return not await self.open()

    async def leased(self) -> set[str]:
        """The workers that may hold messages: a lease at rest, which a fraction in its end marks, holds none."""
        workers = [key async for key in self._redis.scan_iter("{mq:*}:workers", count=1000)]
        entries = [entry for key in workers for entry in await self._redis.zrange(key, 0, -1, withscores=True)]
        return {name.decode() for name, end in entries if end.is_integer()}

    async def buried(self, pid: int) -> bool:
        """Whether the death of a process has been noticed."""
        return not any(f"-{pid}-" in name for name in await self.leased())

    async def reminders_due(self) -> dict[str, float]:
        """When the reminders that are put off are due, in seconds of the server's clock."""
        put_off = await self._redis.zrange(Keys(topic_list("order.reminder")).delayed, 0, -1, withscores=True)
        return {f"order.reminder {json.loads(raw.partition(b':')[2])['id']}": due / 1000 for raw, due in put_off}

    async def now(self) -> float:
        """The server's clock."""
        seconds, microseconds = await self._redis.time()
        return float(seconds + microseconds / 1e6)

    async def dead(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in await self._redis.lrange(Keys(topic_list(topic)).dead, 0, -1)]


@pytest.fixture
async def topics(redis: Redis) -> AsyncIterator[Topics]:
    """The topics of the server, which are there for this test alone: at the end all of their keys go."""
    topics = Topics(redis)
    yield topics
    leased = await topics.leased()
    keys = [key async for key in redis.scan_iter("*", count=1000)]
    if keys:
        await redis.delete(*keys)
    left = {key.decode() for key in keys}
    assert all(key.startswith(("{mq:", "{mq}:topics", PROCESSES, HANDLED)) for key in left), left
    assert not leased
    assert not any(":inflight:" in key for key in left), left


async def test_all_that_is_sent_comes_to_its_end(server: EmbeddedServer, topics: Topics, start: Start) -> None:
    sender = start("send", REDIS_URL=server.url)
    assert await sender.ended() == 0, sender.log
    due = await topics.reminders_due()
    assert len(due) == 2

    async def reminded() -> bool:
        handled = await topics.handled()
        now = await topics.now()
        assert [field for field in due if field in handled and now < due[field]] == []
        return due.keys() <= handled.keys()

    worker = await start("worker", REDIS_URL=server.url).started()
    await wait_until(reminded, "the reminders")
    await wait_until(topics.all_settled, "all to be settled")
    assert await topics.handled_each() == HANDLED_EACH
    assert set((await topics.handled()).values()) == {1}

    [letter] = await topics.dead("inventory.alert")
    assert json.loads(letter["raw"])["data"] == {"left": 0}
    assert letter["reason"].endswith("an alert without a sku")
    [letter] = await topics.dead("audit.login")
    assert letter["reason"].endswith("no handler for audit.login")
    assert f"message of audit.login {letter['id']} dead letter" in worker.log

    worker.signal(signal.SIGTERM)
    assert await worker.summary() == SUMMARY


async def test_what_a_killed_worker_held_is_handled_by_another(
    server: EmbeddedServer, topics: Topics, start: Start, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # whoever reads it waits until somebody writes
    first = await start("worker", REDIS_URL=server.url).started()
    async with Publisher(server.url) as publisher:
        await publisher.publish("file.process", {"path": str(pipe)}, id="held")
        ids = await publisher.publish_many("user.notification", [{"user": "ada", "text": "hello"}] * 200)
    sender = start("send", REDIS_URL=server.url)
    inflight = Keys(topic_list("file.process")).listed("")

    async def amid() -> bool:
        held = any(key.startswith(inflight) for key in await topics.open())
        return held and (await topics.handled_each())["user.notification"] >= 20

    await wait_until(amid, "the worker to be amid its work")
    first.kill()
    assert await sender.ended() == 0, sender.log
    assert "file.process held" not in await topics.handled()

    pipe.unlink()
    pipe.write_text("an ordinary file")
    second = await start("worker", REDIS_URL=server.url).started()
    await wait_until(topics.all_settled, "all to be settled")
    handled = await topics.handled()
    assert {"file.process held", *(f"user.notification {id}" for id in ids)} <= handled.keys()
    expected = Counter(HANDLED_EACH) + Counter({"file.process": 1, "user.notification": 200})
    assert await topics.handled_each() == expected
    await wait_until(lambda: topics.buried(first.pid), "the first worker's death to be noticed")
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0, second.log


async def test_all_in_one_with_a_server_of_its_own(start: Start) -> None:
    assert await start().summary() == SUMMARY


async def test_all_in_one_with_the_server_that_is_named(server: EmbeddedServer, topics: Topics, start: Start) -> None:
    assert await start(REDIS_HOST=HOST, REDIS_PORT=str(server.port)).summary() == SUMMARY
    assert await topics.handled_each() == HANDLED_EACH
    assert await topics.open() == set()


async def test_ctrl_c_ends_it_gracefully(start: Start) -> None:
    whole = await start().started()
    await whole.said("user.notification ")  # it has handled something
    whole.signal(signal.SIGINT)
    summary = await whole.summary()
    assert summary
    for topic, numbers in summary.items():
        assert all(found <= most for found, most in zip(numbers, SUMMARY[topic], strict=True)), topic
    assert sum(map(sum, summary.values())) > 0


async def test_ctrl_c_ends_the_wait_for_a_server(start: Start) -> None:
    with socket.create_server((HOST, 0)) as silent:
        silent.settimeout(PATIENCE)
        worker = start("worker", REDIS_URL=f"redis://{HOST}:{silent.getsockname()[1]}")
        connection, _ = await asyncio.to_thread(silent.accept)
        with connection:
            worker.signal(signal.SIGINT)
            assert await worker.summary() == {}


async def test_no_server_is_one_line(start: Start) -> None:
    sender = start("send", REDIS_URL=f"redis://{HOST}:1")
    assert await sender.ended() == 1
    [line] = sender.log.splitlines()
    assert line.startswith("Error: ")
