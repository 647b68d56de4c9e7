"""This worker: one process; an inline function, a coroutine, and a function in threads."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin
from redis_worker import SyncTaskClient

_KEYS = ("peer:input", "peer:output")


async def coroutine(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


def function(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


def slow(numbers: list[int]) -> int:
    """Take a while."""
    begin()
    time.sleep(SLOW)
    return sum(numbers)


def push(_: str, count: int) -> None:
    """Enqueue tasks."""
    with SyncTaskClient(URL, *_KEYS) as client:
        client.submit_many([NUMBERS] * count)


def ask(_: str) -> Any:
    """Return the result of a task."""
    with SyncTaskClient(URL, *_KEYS) as client:
        return client.run(NUMBERS, 30)
