"""taskiq: coroutines, and plain functions in threads; two processes, its default.

The broker of the README's example is the stream, which acknowledges; the list does not:
https://github.com/taskiq-python/taskiq-redis#usage. Options of the worker: https://taskiq-python.github.io/guide/cli.html
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin

_broker = ListQueueBroker if os.environ.get("PEER_BROKER") == "list" else RedisStreamBroker
_backend: Any = RedisAsyncResultBackend(URL, prefix_str="result", serializer=ORJSONSerializer())
# The consumer group is made after the tasks are there: it begins with the first.
_options = {} if _broker is ListQueueBroker else {"consumer_id": "0"}
# redis-py 8 has a time limit of 5 s by default, which ends the worker's wait for tasks.
broker = _broker(URL, socket_timeout=None, **_options).with_result_backend(_backend).with_serializer(ORJSONSerializer())


@broker.task
async def coroutine(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@broker.task
def function(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@broker.task
async def slow(numbers: list[int]) -> int:
    """Take a while."""
    begin()
    await asyncio.sleep(SLOW)
    return sum(numbers)


_TASKS: dict[str, Any] = {"coroutine": coroutine, "function": function, "slow": slow}


async def push(name: str, count: int) -> None:
    """Enqueue tasks."""
    await broker.startup()
    for first in range(0, count, 100):
        await asyncio.gather(*(_TASKS[name].kiq(NUMBERS) for _ in range(min(100, count - first))))
    await broker.shutdown()


async def ask(name: str) -> Any:
    """Return the result of a task."""
    await broker.startup()
    task = await _TASKS[name].kiq(NUMBERS)
    result = await task.wait_result(timeout=30, check_interval=0.05)
    await broker.shutdown()
    return result.return_value
