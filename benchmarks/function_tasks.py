"""Queues of functions that do nothing, and their filling through `submit_many`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from benchmarks.contenders import INPUT, OUTPUT
from redis_worker import TaskQueue
from redis_worker.functions.function import Call

_URL = os.environ.get("BENCH_URL", "redis://localhost")
coroutines, threads, inline, mixed = (TaskQueue(_URL, INPUT, results=OUTPUT) for _ in range(4))


@mixed.task
@coroutines.task
async def async_noop(number: int, second: int, third: int) -> None:
    """Do nothing, as a coroutine."""


@mixed.task
@threads.task
def noop(number: int, second: int, third: int) -> None:
    """Do nothing, in a thread."""


@mixed.task(execution="inline")
@inline.task(execution="inline")
def inline_noop(number: int, second: int, third: int) -> None:
    """Do nothing, on the event loop."""


def fill(url: str, key: str, functions: Sequence[str], count: int, unique: bool) -> None:
    """Submit `count` calls of `functions` in turn to the list `key`; `unique` has them carry unique ids."""
    other = TaskQueue(url, key)
    submitted = [other.task(name=function)(threads.functions["noop"].__wrapped__) for function in functions]

    def call(number: int) -> Call[None]:
        function = submitted[number % len(submitted)]
        return (function.options(id=number) if unique else function).call(number, 2, 3)

    other.submit_many_sync(map(call, range(count)))
    other.close_sync()
