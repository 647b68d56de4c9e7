"""RQ: functions; a process for each core, which runs jobs itself instead of forking for each.

Its notes on performance: https://github.com/rq/rq/blob/master/docs/benchmark.md
"""

from __future__ import annotations

import time
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin


def function(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


def slow(numbers: list[int]) -> int:
    """Take a while."""
    begin()
    time.sleep(SLOW)
    return sum(numbers)


def push(name: str, count: int) -> None:
    """Enqueue tasks."""
    queue = Queue(connection=Redis.from_url(URL))
    for first in range(0, count, 100):
        number = min(100, count - first)
        queue.enqueue_many([Queue.prepare_data(f"benchmarks.peers.rq.{name}", (NUMBERS,)) for _ in range(number)])


def ask(name: str) -> Any:
    """Return the result of a task."""
    job = Queue(connection=Redis.from_url(URL)).enqueue(f"benchmarks.peers.rq.{name}", NUMBERS)
    while not job.is_finished:
        time.sleep(0.05)
    return job.return_value()
