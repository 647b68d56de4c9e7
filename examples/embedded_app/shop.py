"""The shared parts of the applications: the file, and a client of its pool."""

from __future__ import annotations

from pathlib import Path

from redis_worker import Supervisor, TaskClient

FILE = Path(__file__).with_name("workers.toml")
"""The description of the workers, found from any working directory."""


def new_client(supervisor: Supervisor) -> TaskClient:
    """Return a client of the pool, at the file's Redis; create it before the start, which may find nothing to run."""
    url = supervisor.plan.url
    assert url is not None, "the file has a Redis URL"
    return TaskClient(url, "shop:orders", "shop:bills")
