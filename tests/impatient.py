"""`redis-worker` that replaces hung workers and gives up on dying ones in seconds, where it takes minutes otherwise."""

from __future__ import annotations

from functools import partial

from redis_worker.cli import workers
from redis_worker.cli.main import main

if __name__ == "__main__":
    workers.Supervision = partial(workers.Supervision, hang_timeout=5.0, max_restarts=2)  # type: ignore[misc]
    main()
