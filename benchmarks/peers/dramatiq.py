"""Dramatiq: functions in threads, and coroutines by its middleware AsyncIO; a process of 8 threads for each core.

That is its default: https://dramatiq.io/guide.html#workers. Results: https://dramatiq.io/cookbook.html#results.
Prefetching is set by the variable `dramatiq_queue_prefetch`: https://dramatiq.io/advanced.html
"""

from __future__ import annotations

import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin

_backend = RedisBackend(url=URL, use_namespace_prefix_keys=True)
_broker = RedisBroker(url=URL)
_broker.add_middleware(Results(backend=_backend))
_broker.add_middleware(AsyncIO())
dramatiq.set_broker(_broker)


@dramatiq.actor(store_results=True)
async def coroutine(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@dramatiq.actor(store_results=True)
def function(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@dramatiq.actor(store_results=True)
def slow(numbers: list[int]) -> int:
    """Take a while."""
    begin()
    time.sleep(SLOW)
    return sum(numbers)


_ACTORS: dict[str, Any] = {"coroutine": coroutine, "function": function, "slow": slow}


def push(name: str, count: int) -> None:
    """Enqueue tasks."""
    for _ in range(count):
        _ACTORS[name].send(NUMBERS)


def ask(name: str) -> Any:
    """Return the result of a task."""
    return _ACTORS[name].send(NUMBERS).get_result(block=True, timeout=30_000)
