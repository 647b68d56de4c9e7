"""SAQ: coroutines, and plain functions in threads; a process for each core, by `--workers`.

Options of the worker: https://github.com/tobymao/saq#usage
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from saq import Queue

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin

queue = Queue.from_url(URL)


async def coroutine(_: Any, *, numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


def function(_: Any, *, numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


def slow(_: Any, *, numbers: list[int]) -> int:
    """Take a while."""
    begin()
    time.sleep(SLOW)
    return sum(numbers)


throughput = {"queue": queue, "functions": [coroutine, function], "concurrency": 32}
defaults = {"queue": queue, "functions": [slow], "concurrency": 2}


async def push(name: str, count: int) -> None:
    """Enqueue tasks."""
    for first in range(0, count, 100):
        await asyncio.gather(*(queue.enqueue(name, numbers=NUMBERS) for _ in range(min(100, count - first))))
    await queue.disconnect()


async def ask(name: str) -> Any:
    """Return the result of a task."""
    result = await queue.apply(name, numbers=NUMBERS)
    await queue.disconnect()
    return result
