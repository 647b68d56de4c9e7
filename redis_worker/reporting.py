"""The one place where events become log lines."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from redis_worker.engine.running import RunningTask
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.outages import Outages
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.task import Delivery, Outcome, but_successes

logger = library_logger()


class Reporter(Observer):
    """Logs what happens to the pool on `queue`; payloads never."""

    def __init__(self, queue: str, what: str = "task") -> None:
        """`what` is what there is in the queue: "task", or "message of order.reminder" where there are many queues."""
        self._queue = queue
        self._what = what
        self._damaged = Outages()

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        again = sum(delivery.deaths > 0 for delivery in deliveries)
        if again:
            logger.info("claimed %d tasks that dead workers had held", again, extra=self._extra(count=again))

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            for outcome in outcomes:
                if outcome.error is None and not outcome.skipped:
                    self._task(logging.DEBUG, outcome, "succeeded")
        for outcome in but_successes(outcomes):
            if outcome.skipped:
                self._task(logging.INFO, outcome, "skipped, as it was completed before,")
            else:
                self._task(logging.WARNING, outcome, _verdict(outcome))

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        logger.warning(
            "%d finished tasks had gone to other workers meanwhile; their results are not written",
            len(outcomes),
            extra=self._extra(count=len(outcomes)),
        )

    def released(self, deliveries: Sequence[Delivery]) -> None:
        logger.debug("handed back %d tasks", len(deliveries), extra=self._extra(count=len(deliveries)))

    def recovered(self, worker: str, count: int) -> None:
        if count:
            logger.warning("recovered %d tasks of the dead worker %s", count, worker, extra=self._extra(count=count))
        else:
            logger.info("the worker %s is gone; it held nothing", worker, extra=self._extra())

    def lease_lost(self, worker: str) -> None:
        logger.warning(
            "this worker was presumed dead as %s; its tasks went to others, it goes on under a new name",
            worker,
            extra=self._extra(),
        )

    def paused(self) -> None:
        logger.warning(
            "the queue %s is paused: nothing is claimed until it is resumed (redis-worker resume)",
            self._queue,
            extra=self._extra(),
        )

    def resumed(self) -> None:
        logger.info("the queue %s is resumed", self._queue, extra=self._extra())

    def damaged(self, error: DamagedKey) -> None:
        """Log a damaged key once, as long as it is met again and again."""
        if self._damaged.begins(error.key):
            logger.error("%s", error, extra=self._extra(key=error.key))

    def disconnected(self, error: Exception, delay: float) -> None:
        logger.warning("Redis is away (%s); trying again in %.1f s", error, delay, extra=self._extra())

    def reconnected(self, seconds: float) -> None:
        logger.warning("Redis is back after %.1f s", seconds, extra=self._extra())

    def block(self, seconds: float, stack: str) -> None:
        """Log what `blocked` tells. It is for one of those who share an event loop to call, whoever has blocked it."""
        report_block(seconds, stack, {} if PART.get() else self._extra())

    def _task(self, level: int, outcome: Outcome, verdict: str) -> None:
        logger.log(
            level,
            "%s %s %s in %.1f ms%s",
            self._what,
            outcome.id,
            verdict,
            outcome.seconds * 1000,
            f": {outcome.error}" if outcome.error else "",
            extra=self._extra(
                task=outcome.id, attempt=outcome.delivery.attempt, duration=round(outcome.seconds, 6), outcome=verdict
            ),
        )

    def _extra(self, **fields: object) -> dict[str, object]:
        return {"queue": self._queue, **fields}


def report_block(seconds: float, stack: str, extra: Mapping[str, object] | None = None) -> None:
    """Log that the event loop was blocked, and by which part, where that is known (see Watchdog)."""
    part = PART.get()
    what = f"the part {part} has blocked the event loop" if part else "the event loop has been blocked"
    logger.warning("%s for %.1f s, here:\n%s", what, seconds, stack.rstrip(), extra=extra)


def report_running(tasks: Sequence[RunningTask], where: str = "") -> None:
    """Log `tasks`, after a line that says how many there are. As warnings, for somebody has asked."""
    count = len(tasks)
    how_many = "1 task is" if count == 1 else f"{count or 'no'} tasks are"
    logger.warning("%s%s running", where, how_many, extra={"running": count})
    for task in tasks:
        logger.warning(
            "task %s has been running for %.1f s%s",
            *(task.id, task.seconds, f", here:\n{task.stack.rstrip()}" if task.stack else ""),
            extra={"task": task.id, "duration": round(task.seconds, 3)},
        )


def _verdict(outcome: Outcome) -> str:
    if outcome.again is not None:
        return f"failed, to be tried again in {outcome.again:.1f} s,"
    return "dead letter" if outcome.dead else "failed"
