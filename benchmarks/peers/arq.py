"""arq: coroutines only, in one process (its command starts no more).

It polls every `poll_delay`, for up to `queue_read_limit` jobs: https://arq-docs.helpmanuel.io/#arq.worker.Worker
"""

from __future__ import annotations

import asyncio
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin


async def coroutine(_: Any, numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


async def slow(_: Any, numbers: list[int]) -> int:
    """Take a while."""
    begin()
    await asyncio.sleep(SLOW)
    return sum(numbers)


class Throughput:
    """The settings of the worker."""

    functions = (coroutine,)
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = 100
    poll_delay = 0.01


class Defaults:
    """The settings of the worker that is killed: two slots."""

    functions = (slow,)
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = 2


async def push(name: str, count: int) -> None:
    """Enqueue tasks."""
    pool = await create_pool(RedisSettings.from_dsn(URL))
    for first in range(0, count, 100):
        await asyncio.gather(*(pool.enqueue_job(name, NUMBERS) for _ in range(min(100, count - first))))
    await pool.aclose()


async def ask(name: str) -> Any:
    """Return the result of a task."""
    pool = await create_pool(RedisSettings.from_dsn(URL))
    job = await pool.enqueue_job(name, NUMBERS)
    result = await job.result(timeout=30)
    await pool.aclose()
    return result
