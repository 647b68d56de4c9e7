"""Processors that do nothing, so that only the worker's share is measured."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

_PAUSE = 0.05


async def async_noop(arguments: list[Any]) -> None:
    """Do nothing, as a coroutine."""


def noop(arguments: list[Any]) -> None:
    """Do nothing, in a thread or a process."""


async def in_order(_: list[Any]) -> None:
    """Wait as long as all others, so that tasks end in the order of their claim."""
    await asyncio.sleep(_PAUSE)


async def in_random_order(_: list[Any]) -> None:
    """Wait as long on average, so that tasks end in any order."""
    await asyncio.sleep(random.uniform(0.0, 2 * _PAUSE))


def busy(_: list[Any]) -> None:
    """Use the CPU for a millisecond."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass


async def nap(_: list[Any]) -> None:
    """Sleep for a tenth of a second."""
    await asyncio.sleep(0.1)


async def clock(_: list[Any]) -> float:
    """Return the start time of the task, in seconds since the epoch."""
    return time.time()


def timed_wait(arguments: list[Any]) -> float:
    """Sleep for so many seconds; return the start time, in seconds since the epoch."""
    begun = time.time()
    time.sleep(arguments[0])
    return begun


async def timed_sleep(arguments: list[Any]) -> float:
    """Do the same as a coroutine."""
    begun = time.time()
    await asyncio.sleep(arguments[0])
    return begun
