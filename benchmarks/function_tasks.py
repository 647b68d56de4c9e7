"""Queues of functions that do nothing, and their filling through `submit_many`."""

from __future__ import annotations

import os

from benchmarks.contenders import INPUT, OUTPUT
from redis_worker import TaskQueue

_URL = os.environ.get("BENCH_URL", "redis://localhost")
coroutines, threads, inline = (TaskQueue(_URL, INPUT, results=OUTPUT) for _ in range(3))


@coroutines.task
async def async_noop(number: int, second: int, third: int) -> None:
    """Do nothing, as a coroutine."""


@threads.task
def noop(number: int, second: int, third: int) -> None:
    """Do nothing, in a thread."""


@inline.task(execution="inline")
def inline_noop(number: int, second: int, third: int) -> None:
    """Do nothing, on the event loop."""


def fill(url: str, key: str, function: str, count: int) -> None:
    """Submit `count` calls of `function` to the list `key`."""
    other = TaskQueue(url, key)
    submitted = other.task(name=function)(noop.__wrapped__)
    other.submit_many_sync(submitted.call(number, 2, 3) for number in range(count))
    other.close_sync()
