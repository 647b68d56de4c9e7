"""Celery: functions, in a process for each core.

For many short tasks its guide advises to prefetch 64 or 128 of them:
https://docs.celeryq.dev/en/stable/userguide/optimizing.html#prefetch-limits
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin

app = Celery("peer", broker=URL, backend=URL)


@app.task
def function(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@app.task
def slow(numbers: list[int]) -> int:
    """Take a while."""
    begin()
    time.sleep(SLOW)
    return sum(numbers)


_TASKS: dict[str, Any] = {"function": function, "slow": slow}


def push(name: str, count: int) -> None:
    """Enqueue tasks; the results are not waited for."""
    # One connection to the broker, and no subscription to each result: https://docs.celeryq.dev/en/stable/userguide/calling.html
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            _TASKS[name].apply_async((NUMBERS,), producer=producer)


def ask(name: str) -> Any:
    """Return the result of a task."""
    return _TASKS[name].delay(NUMBERS).get(timeout=30)
