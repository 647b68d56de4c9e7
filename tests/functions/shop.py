"""Functions of a shop, for workers that are processes of their own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis_worker import TaskQueue, current_resources, current_task

queue = TaskQueue(
    os.environ.get("SHOP_URL", "redis://localhost"),
    os.environ.get("SHOP_QUEUE", "shop"),
    results=os.environ.get("SHOP_RESULTS", "shop:results"),
)


@queue.lifespan
async def resources() -> AsyncIterator[dict[str, int]]:
    """Note start and end in files, and fail if somebody wants that."""
    folder = Path(os.environ["SHOP_FOLDER"])
    if (folder / "fail").exists():
        raise OSError("the database is away")
    (folder / f"started-{os.getpid()}").touch()
    yield {"pid": os.getpid()}
    (folder / f"ended-{os.getpid()}").touch()


@queue.task
async def add(left: int, right: int = 1) -> int:
    """Add on the event loop."""
    return left + right


@queue.task
async def merge(numbers: list[int]) -> int:
    """Add many on the event loop."""
    return sum(numbers)


@queue.task
def where_thread() -> list[Any]:
    """Say where this runs."""
    return _where()


@queue.task
async def where_async() -> list[Any]:
    """Say where this runs."""
    return _where()


@queue.task(execution="process")
def where_process() -> list[Any]:
    """Say where this runs."""
    return _where()


@queue.task(execution="process", timeout=0.5)
def hang(seconds: float) -> None:
    """Hold a process."""
    time.sleep(seconds)


@queue.task(execution="process")
def hold(seconds: float) -> int:
    """Hold a process, and note which."""
    (Path(os.environ["SHOP_FOLDER"]) / f"held-{os.getpid()}").touch()
    time.sleep(seconds)
    return os.getpid()


@queue.task(execution="process")
def report_process() -> bool:
    """Report from a process."""
    current_task().progress(1, 2, "half")
    (Path(os.environ["SHOP_FOLDER"]) / "reported").touch()
    while not (Path(os.environ["SHOP_FOLDER"]) / "go").exists():
        time.sleep(0.01)
    current_task().progress(2, 2)
    return True


@queue.task
async def wait(seconds: float) -> None:
    """Wait on the event loop, and note who does."""
    (Path(os.environ["SHOP_FOLDER"]) / f"waits-{time.monotonic_ns()}").touch()
    await asyncio.sleep(seconds)


def _where() -> list[Any]:
    task = current_task()
    assert task.resources is current_resources()
    return [task.id, task.function, task.queue, task.attempt, task.resources["pid"] == os.getpid(), os.getpid()]


def processor(_: list[Any]) -> int:
    """Return what the lifespan of a pool has yielded."""
    return int(current_resources()["pid"])


of_job: list[str] = []


async def job_resources() -> AsyncIterator[list[str]]:
    """Note start and end."""
    of_job.append("in")
    yield of_job
    of_job.append("out")


def job() -> None:
    """Note a run of a cron job."""
    current_resources().append("run")
