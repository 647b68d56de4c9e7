"""The retry of failed tasks: the decision, and the delay."""

from __future__ import annotations

import random
from dataclasses import dataclass

from redis_worker.engine.execution import Answer
from redis_worker.vocabulary.task import Delivery, Outcome


def backoff(first: float, longest: float, before: int) -> float:
    """Return the delay in seconds after a failure that follows `before` others: it doubles, up to `longest`.

    Half of it is jitter, so that tasks that failed together are not retried together.
    """
    return min(longest, first * 2.0 ** min(before, 1000)) * random.uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A number of retries, with doubling delays and jitter. Times are in seconds."""

    retries: int = 0
    backoff: float = 1.0
    longest: float = 60.0
    granted: int = 10
    """The number of retries for a processor that raises Retry if `retries` is 0."""
    bury: bool = False
    """True to keep a dead letter of every final failure, as for messages, which have no results."""

    def outcome(self, delivery: Delivery, id: str, answer: Answer, seconds: float) -> Outcome:
        """Return the outcome of a failure: a retry after a delay, or an error, dead if retries are over or declined."""
        delay = self.delay(answer, delivery.retries)
        if delay is not None:
            return Outcome(delivery, id, None, answer.error, False, seconds, delay, exception=answer.exception)
        dead = self.bury or self.retries > 0 or answer.verdict != "failed"
        return Outcome(delivery, id, answer.result, answer.error, dead, seconds, exception=answer.exception)

    def delay(self, answer: Answer, retries: int) -> float | None:
        """Return the delay before the next retry of a task with `answer` after `retries`; None for no retry."""
        if answer.verdict == "reject":
            return None
        limit = self.retries
        if answer.verdict == "retry":
            limit = limit or self.granted
        if retries >= limit:
            return None
        if answer.delay is not None:
            return answer.delay
        return backoff(self.backoff, self.longest, retries)
