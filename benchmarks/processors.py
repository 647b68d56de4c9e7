"""Processors that do nothing, so that only the worker's share is measured."""

from __future__ import annotations

import time
from typing import Any


async def async_noop(arguments: list[Any]) -> None:
    """Do nothing, as a coroutine."""


def noop(arguments: list[Any]) -> None:
    """Do nothing, in a thread or a process."""


async def clock(_: list[Any]) -> float:
    """Return the start time of the task, in seconds since the epoch."""
    return time.time()
