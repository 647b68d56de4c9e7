"""What the applications have in common: the file, and a client of its pool."""

from __future__ import annotations

from pathlib import Path

from redis_worker import Supervisor, TaskClient

FILE = Path(__file__).with_name("workers.toml")
"""What describes the workers; found wherever the application is started."""


def new_client(supervisor: Supervisor) -> TaskClient:
    """A client of the pool, at the Redis of the file; to be made before the start, which may find nothing to run."""
    url = supervisor.plan.url
    assert url is not None, "the file says where Redis is"
    return TaskClient(url, "shop:orders", "shop:bills")
