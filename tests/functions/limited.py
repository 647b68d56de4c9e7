"""Functions under limits, for workers that are processes of their own; each notes when it starts and ends."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from redis_worker import TaskQueue

queue = TaskQueue(
    os.environ.get("SHOP_URL", "redis://localhost"),
    os.environ.get("SHOP_QUEUE", "shop"),
    results=os.environ.get("SHOP_RESULTS", "shop:results"),
)


def note(*words: object) -> None:
    """Append a line to the log, which all workers share."""
    line = " ".join(map(str, (*words, time.time(), os.getpid()))) + "\n"
    log = os.open(Path(os.environ["SHOP_FOLDER"]) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line.encode())
    os.close(log)


@queue.task(rate="20/500ms")
async def hit(number: int) -> int:
    """Note a start."""
    note("hit", number)
    return number


@queue.task(concurrency=3)
async def heavy(number: int, is_stuck: bool = False) -> int:
    """Note start and end; get stuck if that is asked for, until somebody lets it go."""
    note("start", number)
    await asyncio.sleep(0.01)
    while is_stuck and not (Path(os.environ["SHOP_FOLDER"]) / "go").exists():
        await asyncio.sleep(0.01)
    note("end", number)
    return number


@queue.task(per_key=1)
async def visit(key: str, number: int) -> int:
    """Note start and end for a key."""
    note("start", key, number)
    await asyncio.sleep(0.01)
    note("end", key, number)
    return number


@queue.task(per_key=1, in_order=True)
async def step(key: str, number: int) -> int:
    """Note start and end for a key."""
    return await visit(key, number)


@queue.task
async def free(number: int) -> int:
    """Return at once."""
    return number


def processor(arguments: list[int]) -> int:
    """Note a start, for a pool."""
    note("hit", arguments[0])
    return arguments[0]
