"""streaQ: coroutines, and plain functions in threads; a process for each core.

The concurrency is that of its own benchmark: https://github.com/tastyware/streaq/tree/master/benchmarks
"""

from __future__ import annotations

import time
from typing import Any

from streaq import Worker

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin

worker = Worker(redis_url=URL, concurrency=32, anyio_kwargs={"use_uvloop": True})
defaults = Worker(redis_url=URL, concurrency=2)


@worker.task
async def coroutine(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@worker.task
def function(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@defaults.task
def slow(numbers: list[int]) -> int:
    """Take a while."""
    begin()
    time.sleep(SLOW)
    return sum(numbers)


_TASKS: dict[str, Any] = {"coroutine": coroutine, "function": function, "slow": slow}


async def push(name: str, count: int) -> None:
    """Enqueue tasks."""
    task, queue = _TASKS[name], defaults if name == "slow" else worker
    async with queue:
        for first in range(0, count, 1000):
            await queue.enqueue_many([task.enqueue(NUMBERS) for _ in range(min(1000, count - first))])


async def ask(name: str) -> Any:
    """Return the result of a task."""
    async with worker:
        task = await _TASKS[name].enqueue(NUMBERS)
        return (await task.result(timeout=30)).result
