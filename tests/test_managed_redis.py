"""A server that blocks what managed services block: workers work, and doctor says what it cannot check."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from redis_worker import Message, Publisher, TaskClient, TopicWorker, WorkerPool
from redis_worker.broker.operator.doctor.examination import examine
from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, ROOT, wait_until

# The union of docs/managed_redis.md: Memorystore for Redis blocks most.
BLOCKED = (
    *("acl", "bgrewriteaof", "bgsave", "client", "cluster", "command", "config", "debug", "lastsave", "latency"),
    *("migrate", "module", "monitor", "object", "psync", "replicaof", "save", "shutdown", "slaveof", "sync"),
)


@pytest.fixture(scope="module")
def managed(first_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(first_server.binary) as running:
        asyncio.run(block(running.url))
        yield running


async def block(url: str) -> None:
    async with Redis.from_url(url) as redis:
        rights = [f"-{command}" for command in BLOCKED]
        await redis.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all", *rights)


async def test_a_pool_works(managed: EmbeddedServer) -> None:
    async with WorkerPool(managed.url, "in", "out", "list", "sum"), TaskClient(managed.url, "in", "out") as client:
        assert await client.run([1, 2], timeout=PATIENCE) == 3


async def test_topics_work_with_delays_and_retries(managed: EmbeddedServer) -> None:
    seen: list[int] = []
    worker = TopicWorker(managed.url)

    @worker.handler("orders", retries=1, retry_backoff=0.1, idempotent=True)
    async def handle(message: Message) -> None:
        seen.append(message.attempt)
        if message.attempt == 1:
            raise ValueError("once more")

    async with worker, Publisher(managed.url) as publisher:
        await publisher.publish("orders", {"order": 1}, delay=0.1)
        await wait_until(lambda: seen == [1, 2], "the retry")


async def test_doctor_says_what_it_cannot_check(managed: EmbeddedServer) -> None:
    examination = await examine(managed.url, ["in"], ["out"])
    assert examination.connected
    assert examination.healthy, examination.findings
    unknown = {finding.subject for finding in examination.findings if "cannot be checked" in finding.what}
    assert unknown == {"result expiry", "persistence"}
    (topics,) = [finding.what for finding in examination.findings if finding.subject == "topics"]
    assert "poll 10 times a second" in topics


async def test_health_and_status_work(managed: EmbeddedServer) -> None:
    async with WorkerPool(managed.url, "in", "out", "list", "sum"):
        for command in (["status", "--url", managed.url], ["health", "--url", managed.url, "--input", "in"]):

            def ask(command: list[str] = command) -> subprocess.CompletedProcess[str]:
                program = [sys.executable, "-m", "redis_worker", *command]
                return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)

            async def works() -> bool:
                return (await asyncio.to_thread(ask)).returncode == 0

            await wait_until(works, " ".join(command))
