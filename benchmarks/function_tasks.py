"""Queues of functions that do nothing, and their filling through `submit_many`."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.contenders import INPUT, OUTPUT, Contender
from redis_worker import TaskQueue
from redis_worker.functions.function import Call

_URL = os.environ.get("BENCH_URL", "redis://localhost")
coroutines, threads, inline, mixed, rated, counted, keyed = (TaskQueue(_URL, INPUT, results=OUTPUT) for _ in range(7))
strict = TaskQueue(_URL, INPUT, results=OUTPUT, priorities=("high", "default", "low"))
weighted = TaskQueue(_URL, INPUT, results=OUTPUT, priorities={"high": 6, "default": 3, "low": 1})

# Different keys of tasks.
_KEYS = 100


async def async_noop(number: int, second: int, third: int) -> None:
    """Do nothing, as a coroutine."""


def noop(number: int, second: int, third: int) -> None:
    """Do nothing, in a thread."""


for queue in (coroutines, mixed, strict, weighted):
    queue.task(async_noop)
# Limits that are never reached.
rated.task(rate="1000000/s")(async_noop)
counted.task(concurrency=1000)(async_noop)
keyed.task(per_key=1000)(async_noop)
for queue in (threads, mixed):
    queue.task(noop)
for queue in (inline, mixed):
    queue.task(execution="inline", name="inline_noop")(noop)


def fill(url: str, key: str, contender: Contender, count: int) -> None:
    """Submit `count` calls of a contender's functions, in turn, to the list `key`, an equal part to each priority."""
    queue: TaskQueue = globals()[contender.queue]
    filled = TaskQueue(url, key, priorities=queue.priorities)
    names = () if queue.priorities is None else queue.priorities.names

    def call(number: int) -> Call[Any]:
        function = queue.functions[contender.functions[number % len(contender.functions)]]
        options = dict[str, Any]()
        if contender.unique:
            options["id"] = number
        if function.limits.per_key is not None:
            options["key"] = number % _KEYS
        if names:
            options["priority"] = names[number * len(names) // count]
        made: Call[Any] = function.options(**options).call(number, 2, 3)
        return made

    filled.submit_many_sync(map(call, range(count)))
    filled.close_sync()
