"""What `redis-worker run` does in a worker process: a pool, from the signals to the summary."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis_worker.cli.fleet_member import Member
from redis_worker.engine.counters import Counters
from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.http.address import http_address
from redis_worker.reporting import report_running
from redis_worker.service.pool import WorkerPool
from redis_worker.signals import fleet_signals, show_signal, stop_signals
from redis_worker.vocabulary.errors import RedisWorkerError, Refused
from redis_worker.vocabulary.logger import library_logger

if TYPE_CHECKING:
    from redis_worker.service.topic_worker import TopicWorker

logger = library_logger("redis_worker.run")

_REPORT_EVERY = 10.0
_RUNS = {"inline": "inline on the event loop", "async": "as coroutines"}


def work(url: str, settings: dict[str, Any], member: Member | None) -> int:
    """Work until stopped or done. Returns the exit code. Raises RedisWorkerError."""
    if settings["http"] and member and member.number:
        settings["http"] = str(http_address(settings["http"]).shifted(member.number - 1))
    pool = WorkerPool(url, **settings)
    title = "{processor} on {where}: {input_key} -> {output_key}".format(where=pool.address, **settings)
    spare_garbage_collection()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_Service(pool, title, member).run())
    if member:
        member.end_if_orphaned()
    return code


class _Service:
    def __init__(self, pool: WorkerPool, title: str, member: Member | None) -> None:
        self._pool = pool
        self._title = title
        self._member = member
        self._stopped = self._cancelled = False

    async def run(self) -> int:
        pool, member = self._pool, self._member
        self._work = asyncio.create_task(pool.run())
        reporting = asyncio.create_task(self._report())
        signals = fleet_signals if member else stop_signals
        with signals(self._stop, self._cancel), show_signal(self._show_running):
            if member:
                member.watch_parent(self._orphaned)
            try:
                await self._work
            except asyncio.CancelledError:
                if not self._stopped:
                    raise
            except Refused as error:
                if pool.started:
                    raise RedisWorkerError(str(error)) from error
                raise
            finally:
                reporting.cancel()
                if pool.started:
                    summarise(pool.counters)
        return 1 if self._cancelled else 0

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._pool.stop()
        if not self._pool.started:
            logger.info("stopping: work has not begun")
            self._work.cancel()
        elif running := self._pool.running:
            logger.info("stopping: %d task%s running; once more to cancel", running, " is" if running == 1 else "s are")
        else:
            logger.info("stopping")

    def _show_running(self) -> None:
        report_running(self._pool.running_tasks())

    def _orphaned(self) -> None:
        logger.warning("the parent process is gone")
        self._stop()

    def _cancel(self) -> None:
        self._stop()
        self._cancelled = True
        logger.warning("cancelling: what is unfinished goes back to the queue")
        self._pool.cancel()

    async def _report(self) -> None:
        """Say what runs where, once it does; then, while there is work, how it goes."""
        pool = self._pool
        await pool.wait_until_started()
        if self._member:
            self._member.say_started()
        how = _RUNS.get(pool.declaration.execution, f"each in a {pool.declaration.execution}")
        logger.info("%s, %d at once, %s, %s", self._title, pool.options.concurrency, how, pool.options.delivery)
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
