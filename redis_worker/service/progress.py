"""The log lines about the beginning, the progress and the end of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from redis_worker.engine.counters import Counters
from redis_worker.vocabulary.logger import library_logger

if TYPE_CHECKING:
    from redis_worker.service.pool import WorkerPool
    from redis_worker.service.topic_worker import TopicWorker

logger = library_logger("redis_worker.run")

_REPORT_EVERY = 10.0
_RUNS = {"inline": "inline on the event loop", "async": "as coroutines"}


@asynccontextmanager
async def reported(pool: WorkerPool, processor: str) -> AsyncIterator[None]:
    """Log the beginning, the progress and the end of what `pool` does in the block; `processor` is its name."""
    reporting = asyncio.create_task(_report(pool, processor))
    try:
        yield
    finally:
        reporting.cancel()
        if pool.started:
            summarise(pool.counters)


async def _report(pool: WorkerPool, processor: str) -> None:
    await pool.wait_until_started()
    how = _RUNS.get(pool.declaration.execution, f"each in a {pool.declaration.execution}")
    title = f"{processor} on {pool.address}: {pool.queue}"
    logger.info("%s, %d at once, %s, %s", title, pool.options.concurrency, how, pool.options.delivery)
    await report(pool, _REPORT_EVERY)


async def report(pool: WorkerPool | TopicWorker, every: float) -> None:
    """While there is work, log how it goes every so many seconds."""
    counters = pool.counters
    before = counters.processed
    while True:
        await asyncio.sleep(every)
        processed = counters.processed
        if processed != before or pool.running:
            rate = (processed - before) / every
            numbers = {"processed": processed, "rate": round(rate, 1), "failed": counters.failed}
            logger.info(
                "%d processed (%.0f/s), %d failed, %d running",
                *(processed, rate, counters.failed, pool.running),
                extra=numbers | {"running": pool.running},
            )
        before = processed


def stop(pool: WorkerPool) -> None:
    """Stop `pool` gracefully, and log what is still to be done."""
    pool.stop()
    if not pool.started:
        logger.info("stopping: work has not begun")
    elif running := pool.running:
        logger.info("stopping: %d task%s running; once more to cancel", running, " is" if running == 1 else "s are")
    else:
        logger.info("stopping")


def summarise(counters: Counters) -> None:
    """Log what has been done, all in all."""
    extra = "".join(
        f", {count} {what}"
        for count, what in (
            (counters.redelivered, "delivered again"),
            (counters.released, "handed back"),
            (counters.refused, "not written (done elsewhere)"),
        )
        if count
    )
    logger.info(
        "ended: %d processed, %d failed%s, %.1f/s",
        *(counters.processed, counters.failed, extra, counters.rate),
        extra={"processed": counters.processed, "failed": counters.failed, "rate": round(counters.rate, 1)},
    )
