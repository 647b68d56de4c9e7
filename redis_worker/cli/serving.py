"""The work of `redis-worker run` with one process: a pool, from the signals to the summary."""

from __future__ import annotations

import asyncio
from typing import Any

from redis_worker.cli.lifeline import watched_parent
from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.reporting import report_running
from redis_worker.service import progress
from redis_worker.service.pool import WorkerPool
from redis_worker.signals import show_signal, stop_signals
from redis_worker.vocabulary.errors import RedisWorkerError, Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger("redis_worker.run")


def work(url: str, settings: dict[str, Any]) -> int:
    """Run a pool until stopped or done. Return the exit code. Raises RedisWorkerError."""
    pool = WorkerPool(url, **settings)
    spare_garbage_collection()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_work(pool, settings["processor"]))


async def _work(pool: WorkerPool, processor: str) -> int:
    cancelled = False

    def stop() -> None:
        progress.stop(pool)

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True
        logger.warning("cancelling: unfinished tasks go back to the queue")
        pool.cancel()

    def orphaned() -> None:
        logger.warning("the parent process is gone")
        stop()

    signals = stop_signals(stop, cancel), show_signal(lambda: report_running(pool.running_tasks()))
    with signals[0], signals[1], watched_parent(orphaned):
        async with progress.reported(pool, processor):
            try:
                await pool.run()
            except Refused as error:
                if pool.started:
                    raise RedisWorkerError(str(error)) from error
                raise
    return 1 if cancelled else 0
