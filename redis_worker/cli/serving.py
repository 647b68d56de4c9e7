"""A worker in the foreground, from the signals to the summary: for `run` with one process, and `serve` of a worker."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.engine.process_group import end_own_group
from redis_worker.file.queues import find_queue
from redis_worker.service.list_worker import ListWorker
from redis_worker.service.pool import WorkerPool
from redis_worker.service.progress import description, reported
from redis_worker.service.service import Service
from redis_worker.vocabulary.errors import RedisWorkerError, Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger("redis_worker.run")

# The environment variable with the number of a descriptor that becomes readable when the program that started this one
# ends.
LIFELINE = "REDIS_WORKER_LIFELINE"


def worker_of(url: str | None, settings: Mapping[str, Any]) -> ListWorker:
    """Return the pool of the options of `run`, or the worker of their queue of functions. Raises ConfigurationError."""
    if "queue" not in settings:
        assert url is not None
        return WorkerPool(url, **settings)
    options = {key: value for key, value in settings.items() if key != "queue"}
    return find_queue(settings["queue"]).worker(redis=url, **options)


def work(url: str | None, settings: Mapping[str, Any]) -> int:
    """Run a worker until stopped or done. Return the exit code. Raises RedisWorkerError."""
    worker = worker_of(url, settings)
    return run_service(worker, [description(worker, settings.get("processor"))], worker.options.concurrency)


def run_service(worker: Service, lines: Iterable[str], tasks: int) -> int:
    """Run `worker`, up to `tasks` at once, until stopped or done; log `lines` at its start. Return the exit code.

    Raises RedisWorkerError.
    """
    spare_garbage_collection(tasks)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_work(worker, lines))


async def _work(worker: Service, lines: Iterable[str]) -> int:
    def orphaned() -> None:
        logger.warning("the parent process is gone")
        worker.stop_aloud()

    with _watched_parent(orphaned):
        async with reported(worker, lines):
            try:
                graceful = await worker.serve()
            except Refused as error:
                if worker.started:
                    raise RedisWorkerError(str(error)) from error
                raise
    return 0 if graceful else 1


@contextmanager
def _watched_parent(gone: Callable[[], None]) -> Iterator[None]:
    """Call `gone`, in the running loop, when that program ends; after the block, end this process and its children."""
    text = os.environ.pop(LIFELINE, None)  # not for programs that a processor starts
    if text is None:
        yield
        return
    lifeline, loop = int(text), asyncio.get_running_loop()

    def on_end() -> None:
        loop.remove_reader(lifeline)
        gone()

    loop.add_reader(lifeline, on_end)
    yield
    loop.remove_reader(lifeline)
    if select.select([lifeline], [], [], 0)[0]:
        end_own_group()
