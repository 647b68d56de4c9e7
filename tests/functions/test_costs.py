"""The cost of functions for the server: that of a pool, as long as no limit, priority, unique id or flow is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import TaskClient, TaskQueue, WorkerPool, processor
from redis_worker.broker import scripts
from redis_worker.embedded import EmbeddedServer
from tests.support import Queue, wait_until

BATCH, ROUNDS = 50, 8
# Commands that the test itself sends.
OWN, MARK = ("HLEN", "INFO", "DEL"), "mark"
Submit = Callable[[int], Awaitable[Any]]


@processor
async def noop(_: Any) -> None: ...


@asynccontextmanager
async def plain(server: EmbeddedServer, queue: Queue) -> AsyncIterator[Submit]:
    """A pool, and a function that submits so many tasks to it."""
    keys = queue.keys
    async with (
        TaskClient(server.url, keys.waiting, keys.output) as client,
        WorkerPool(server.url, keys.waiting, keys.output, "list", noop, 2 * BATCH),
    ):
        yield lambda count: client.submit_many([[number] for number in range(count)])


@asynccontextmanager
async def functions(server: EmbeddedServer, queue: Queue, has_limits: bool = False) -> AsyncIterator[Submit]:
    """The same with a queue of functions; `has_limits` if there are limits, but on other ones."""
    tasks = TaskQueue(server.url, queue.keys.waiting, results=queue.keys.output, result_ttl=None, error_ttl=None)

    @tasks.task
    async def work(number: int) -> None: ...

    if has_limits:

        @tasks.task(rate="1/s", concurrency=1, per_key=1, in_order=True)
        async def limited(number: int) -> None: ...

    async with tasks.worker(2 * BATCH):
        yield lambda count: work.submit_many([(number,) for number in range(count)])
    await tasks.close()


async def commands(redis: Redis, queue: Queue, submit: Submit, count: int) -> Counter[tuple[str, str, int]]:
    """Return the commands from the submission of so many tasks until the worker waits again, scripts' own included.

    Each has its origin, its name, or that of its script, and the number of its arguments. Of some rounds, the one with
    the fewest counts: nothing was split there, and nothing was done that a clock asks for.
    """
    names = {script.digest: name for name, script in scripts._SCRIPTS.items()}
    rounds = []
    async with redis.monitor() as monitor:
        for _ in range(ROUNDS):
            await redis.delete(queue.keys.output)
            await wait_until(lambda: is_waiting(redis))
            await submit(count)
            await wait_until(lambda: queue.answered(count))
            await wait_until(lambda: is_waiting(redis))
            await redis.get(MARK)
            seen = Counter[tuple[str, str, int]]()
            while True:
                line = (await monitor.connection.read_response()).decode()
                origin = "lua" if "lua]" in line.partition('"')[0] else ""
                name, *arguments = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
                if [name, *arguments] == ["GET", MARK]:
                    break
                if origin or name not in OWN:
                    seen[origin, names.get(arguments[0], name) if arguments else name, len(arguments)] += 1
            rounds.append(seen)
    return min(rounds, key=Counter.total)


async def is_waiting(redis: Redis) -> bool:
    """Return True if the worker waits in its blocking pop."""
    return bool((await redis.info("clients"))["blocked_clients"])


@pytest.mark.parametrize("has_limits", [False, True], ids=["no limits", "limits on others"])
async def test_the_server_is_asked_for_the_same(
    server: EmbeddedServer, queue: Queue, redis: Redis, has_limits: bool
) -> None:
    found = []
    for opened in (plain(server, queue), functions(server, queue, has_limits)):
        async with opened as submit:
            await submit(1)  # which has the server read the scripts
            await wait_until(lambda: queue.answered(1))
            found.append([await commands(redis, queue, submit, count) for count in (1, BATCH)])
    assert found[1] == found[0]
