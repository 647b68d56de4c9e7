"""The log lines about the beginning, the progress and the end of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from redis_worker.service.list_worker import ListWorker
from redis_worker.service.service import Service
from redis_worker.vocabulary.logger import library_logger

logger = library_logger("redis_worker.run")

_REPORT_EVERY = 10.0
_RUNS = {"inline": "inline on the event loop", "async": "as coroutines"}


def description(pool: ListWorker, processor: str | None) -> str:
    """Return the work of `pool` in one line; `processor` is its name, if it has one."""
    if processor is None:
        return pool.summary
    how = _RUNS.get(pool.declaration.execution, f"each in a {pool.declaration.execution}")
    title = f"{processor} on {pool.address}: {pool.queue}"
    return f"{title}, {pool.options.concurrency} at once, {how}, {pool.options.delivery}"


@asynccontextmanager
async def reported(worker: Service, lines: Iterable[str]) -> AsyncIterator[None]:
    """Log `lines` when work begins, and the progress and the end of what `worker` does in the block."""
    reporting = asyncio.create_task(_report(worker, lines))
    try:
        yield
    finally:
        reporting.cancel()
        if worker.started:
            _summarise(worker)


async def _report(worker: Service, lines: Iterable[str]) -> None:
    await worker.wait_until_started()
    for line in lines:
        logger.info("%s", line)
    await report(worker, _REPORT_EVERY)


async def report(worker: Service, every: float) -> None:
    """While there is work, log how it goes every so many seconds."""
    counters = worker.counters
    before = counters.processed
    while True:
        await asyncio.sleep(every)
        processed = counters.processed
        if processed != before or worker.running:
            rate = (processed - before) / every
            numbers = {"processed": processed, "rate": round(rate, 1), "failed": counters.failed}
            logger.info(
                "%d processed (%.0f/s), %d failed, %d running",
                *(processed, rate, counters.failed, worker.running),
                extra=numbers | {"running": worker.running},
            )
        before = processed


def _summarise(worker: Service) -> None:
    """Log what has been done, all in all."""
    counters = worker.counters
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
