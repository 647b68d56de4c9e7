"""The logger of events: one line for each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from operator import attrgetter

from redis_worker.engine.running import RunningTask
from redis_worker.ports import Observer
from redis_worker.vocabulary.error_text import raised_at
from redis_worker.vocabulary.errors import DamagedKey
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.outages import Outages
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.payload import CANCELLED
from redis_worker.vocabulary.task import Delivery, Outcome, but_successes
from redis_worker.vocabulary.text import Lines

logger = library_logger()

_DEATHS = attrgetter("deaths")


class Reporter(Observer):
    """An observer that logs the events of `queue`, without payloads."""

    def __init__(self, queue: str, noun: str = "task", server: str = "Redis") -> None:
        """`noun` names an entry of the queue in log lines: "task", or "message of order.reminder".

        `server` is what the queue is in.
        """
        self._server = server
        self._queue = queue
        self._noun = noun
        self._damaged = Outages()

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        again = sum(1 for _ in filter(_DEATHS, deliveries))
        if again:
            self._log(logging.INFO, "claimed %d tasks of dead workers", again, count=again)

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            for outcome in outcomes:
                if outcome.error is None and not outcome.skipped:
                    self._task(logging.DEBUG, outcome, "succeeded")
        for outcome in but_successes(outcomes):
            if outcome.skipped:
                self._task(logging.INFO, outcome, "skipped (completed before)")
            elif outcome.error == CANCELLED:
                self._task(logging.INFO, outcome, CANCELLED)
            else:
                self._task(logging.WARNING, outcome, _verdict(outcome))

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        count = len(outcomes)
        self._log(logging.WARNING, "%d results are not written: other workers own their tasks now", count, count=count)

    def released(self, deliveries: Sequence[Delivery]) -> None:
        count = len(deliveries)
        self._log(logging.DEBUG, "released %d tasks to the queue", count, count=count)

    def recovered(self, worker: str, count: int) -> None:
        if count:
            self._log(logging.WARNING, "recovered %d tasks of the dead worker %s", count, worker, count=count)
        else:
            self._log(logging.INFO, "the worker %s is dead; it held no tasks", worker)

    def lease_lost(self, worker: str) -> None:
        text = "this worker was presumed dead as %s; others took its tasks, and it continues under a new name"
        self._log(logging.WARNING, text, worker)

    def paused(self) -> None:
        text = "the queue %s is paused: nothing is claimed until it is resumed (redis-worker resume)"
        self._log(logging.WARNING, text, self._queue)

    def resumed(self) -> None:
        self._log(logging.INFO, "the queue %s is resumed", self._queue)

    def damaged(self, error: DamagedKey) -> None:
        """Log a damaged key once per outage."""
        if self._damaged.begins(error.key):
            self._log(logging.ERROR, "%s", error, key=error.key)

    def disconnected(self, error: Exception, delay: float) -> None:
        self._log(logging.WARNING, "%s is away (%s); retrying in %.1f s", self._server, error, delay)

    def reconnected(self, seconds: float) -> None:
        self._log(logging.WARNING, "%s is back after %.1f s", self._server, seconds)

    def block(self, seconds: float, stack: str) -> None:
        """Log a block of the event loop. Workers that share a loop log it once: one of them has this called."""
        report_block(seconds, stack, {} if PART.get() else self._extra())

    def _task(self, level: int, outcome: Outcome, verdict: str) -> None:
        raised = outcome.exception
        place = "" if raised is None else raised_at(raised)
        logger.log(
            level,
            "%s %s %s in %.1f ms%s%s",
            self._noun,
            _named(outcome.id, outcome.delivery.function),
            verdict,
            outcome.seconds * 1000,
            f": {outcome.error}" if outcome.error and outcome.error != verdict else "",
            f" ({place})" if place else "",
            # The stack is long, and the line above names its last frame.
            exc_info=raised if logger.isEnabledFor(logging.DEBUG) else None,
            extra=self._extra(
                **_labels(outcome.id, outcome.delivery.function),
                attempt=outcome.delivery.attempt,
                duration=round(outcome.seconds, 6),
                outcome=verdict,
            ),
        )

    def _log(self, level: int, text: str, *arguments: object, **fields: object) -> None:
        logger.log(level, text, *arguments, extra=self._extra(**fields))

    def _extra(self, **fields: object) -> dict[str, object]:
        return {"queue": self._queue, **fields}


def report_block(seconds: float, stack: str, extra: Mapping[str, object] | None = None) -> None:
    """Log a block of the event loop, with the part that caused it if known (see Watchdog)."""
    part = PART.get()
    subject = f"the part {part} has blocked the event loop" if part else "the event loop has been blocked"
    logger.warning("%s for %.1f s, here:\n%s", subject, seconds, Lines(stack.rstrip()), extra=extra)


def report_running(tasks: Sequence[RunningTask], where: str = "") -> None:
    """Log the number of `tasks`, then each of them; as warnings, because a user asked for them."""
    count = len(tasks)
    how_many = "1 task is" if count == 1 else f"{count or 'no'} tasks are"
    logger.warning("%s%s running", where, how_many, extra={"running": count})
    for task in tasks:
        logger.warning(
            "task %s has been running for %.1f s%s",
            *(_named(task.id, task.function), task.seconds),
            Lines(f", here:\n{task.stack.rstrip()}") if task.stack else "",
            extra=_labels(task.id, task.function) | {"duration": round(task.seconds, 3)},
        )


def _named(id: str | None, function: str | None) -> str:
    """Return the name of a task for people: its id and its function, if it calls one."""
    return str(id) if function is None else f"{id} ({function})"


def _labels(id: str | None, function: str | None) -> dict[str, object]:
    return {"task": id} if function is None else {"task": id, "function": function}


def _verdict(outcome: Outcome) -> str:
    if outcome.again is not None:
        return f"failed (retry in {outcome.again:.1f} s)"
    return "dead letter" if outcome.dead else "failed"
