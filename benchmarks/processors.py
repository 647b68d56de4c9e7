"""Processors that do nothing: what remains is the worker's own share."""

from __future__ import annotations

import time
from typing import Any


async def async_noop(arguments: list[Any]) -> None:
    """Do nothing, as a coroutine."""


def noop(arguments: list[Any]) -> None:
    """Do nothing, in a thread or a process."""


async def clock(_: list[Any]) -> float:
    """Tell when the task was begun, in seconds since the epoch."""
    return time.time()
