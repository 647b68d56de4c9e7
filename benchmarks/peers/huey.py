"""Huey: functions, in processes or threads.

Workers: https://huey.readthedocs.io/en/latest/consumer.html; its blocking storage needs no polling:
https://huey.readthedocs.io/en/latest/api.html#RedisHuey
"""

from __future__ import annotations

import time
from typing import Any

from huey import RedisHuey

from benchmarks.peers.common import NUMBERS, SLOW, URL, begin

queue = RedisHuey("peer", url=URL)


@queue.task()
def function(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@queue.task()
def slow(numbers: list[int]) -> int:
    """Take a while."""
    begin()
    time.sleep(SLOW)
    return sum(numbers)


_TASKS: dict[str, Any] = {"function": function, "slow": slow}


def push(name: str, count: int) -> None:
    """Enqueue tasks."""
    for _ in range(count):
        _TASKS[name](NUMBERS)


def ask(name: str) -> Any:
    """Return the result of a task."""
    return _TASKS[name](NUMBERS).get(blocking=True, timeout=30)
