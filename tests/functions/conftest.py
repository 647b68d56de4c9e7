"""A queue of functions of a test's own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from redis_worker import TaskQueue
from redis_worker.embedded import EmbeddedServer
from tests.support import CommandProcess, Queue, wait_until

Start = Callable[..., CommandProcess]


@pytest.fixture
async def tasks(server: EmbeddedServer, queue: Queue) -> AsyncIterator[TaskQueue]:
    """A queue of functions on the keys of `queue`."""
    tasks = TaskQueue(server.url, queue.keys.waiting, results=queue.keys.output)
    yield tasks
    await tasks.close()


@pytest.fixture
def start(server: EmbeddedServer, queue: Queue, tmp_path: Path) -> Iterator[Start]:
    """Starts commands whose functions are those of shop.py."""
    started: list[CommandProcess] = []
    env = {
        "SHOP_URL": server.url,
        "SHOP_QUEUE": queue.keys.waiting,
        "SHOP_RESULTS": queue.keys.output,
        "SHOP_FOLDER": str(tmp_path),
    }

    def start(*arguments: str) -> CommandProcess:
        started.append(CommandProcess(*arguments, env=os.environ | env))
        return started[-1]

    yield start
    for process in started:
        process.close()


async def end(*processes: CommandProcess) -> None:
    """Stop workers gracefully, so that they leave nothing."""
    for process in processes:
        process.process.terminate()
    await wait_until(lambda: not any(process.alive for process in processes))
