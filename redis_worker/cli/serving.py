"""One worker in the foreground, from the signals to the summary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from redis_worker.cli.lifeline import watched_parent
from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.reporting import report_running
from redis_worker.service import progress
from redis_worker.signals import show_signal, stop_signals
from redis_worker.vocabulary.errors import RedisWorkerError, Refused
from redis_worker.vocabulary.logger import library_logger

if TYPE_CHECKING:
    from redis_worker.service.pool import WorkerPool
    from redis_worker.service.topic_worker import TopicWorker

logger = library_logger("redis_worker.run")


def work(worker: WorkerPool | TopicWorker, describe: Callable[[], Iterable[str]]) -> int:
    """Run `worker` until stopped or done; log the lines of `describe` when it begins. Return the exit code.

    Raises RedisWorkerError.
    """
    spare_garbage_collection()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_work(worker, describe))


async def _work(worker: WorkerPool | TopicWorker, describe: Callable[[], Iterable[str]]) -> int:
    cancelled = False

    def stop() -> None:
        progress.stop(worker)

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True
        logger.warning("cancelling: unfinished tasks go back to the queue")
        worker.cancel()

    def orphaned() -> None:
        logger.warning("the parent process is gone")
        stop()

    signals = stop_signals(stop, cancel), show_signal(lambda: report_running(worker.running_tasks()))
    with signals[0], signals[1], watched_parent(orphaned):
        async with progress.reported(worker, describe):
            try:
                await worker.run()
            except Refused as error:
                if worker.started:
                    raise RedisWorkerError(str(error)) from error
                raise
    return 1 if cancelled else 0
