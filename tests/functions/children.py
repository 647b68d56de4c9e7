"""Functions that run in child processes, which find them by the name of this module."""

from __future__ import annotations

import os
import time

from redis_worker import TaskQueue

processes = TaskQueue("redis://localhost", "processes")


def slept(seconds: float) -> list[float]:
    """Return when a sleep began and ended, by a clock that all processes share."""
    begun = time.monotonic()
    time.sleep(seconds)
    return [begun, time.monotonic()]


@processes.task(execution="process")
def in_process(seconds: float) -> list[float]:
    """Sleep in a process."""
    return slept(seconds)


@processes.task(execution="process")
def pid() -> int:
    """Return the process."""
    return os.getpid()


@processes.task(execution="process")
def die() -> None:
    """End the process, which answers nothing."""
    os._exit(1)


@processes.task(execution="process", timeout=0.1)
def hang() -> None:
    """Exceed a time limit that the other functions do not have."""
    time.sleep(60)
