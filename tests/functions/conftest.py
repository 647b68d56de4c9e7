"""A queue of functions of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from redis_worker import TaskQueue
from redis_worker.embedded import EmbeddedServer
from tests.support import Queue


@pytest.fixture
async def tasks(server: EmbeddedServer, queue: Queue) -> AsyncIterator[TaskQueue]:
    """A queue of functions on the keys of `queue`."""
    tasks = TaskQueue(server.url, queue.keys.waiting, results=queue.keys.output)
    yield tasks
    await tasks.close()
