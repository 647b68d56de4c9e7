"""Whether a task that failed is tried again, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass

from redis_worker.engine.execution import Answer
from redis_worker.vocabulary.task import Delivery, Outcome


def backoff(first: float, longest: float, before: int) -> float:
    """The delay, in seconds, after the failure that `before` others came before: it doubles, up to the longest.

    Half of it is jitter, so that what failed together is not tried again together.
    """
    return min(longest, first * 2.0 ** min(before, 1000)) * random.uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """So many retries, after delays that double, with jitter. Times are in seconds."""

    retries: int = 0
    backoff: float = 1.0
    longest: float = 60.0
    granted: int = 10
    """So many retries for a processor that raises Retry where `retries` is 0."""
    bury: bool = False
    """Every failure that is not tried again gets a dead letter, as where there are no results to tell of it."""

    def outcome(self, delivery: Delivery, id: str, answer: Answer, seconds: float) -> Outcome:
        """Of a failure: again after a delay, or an error, with a dead letter where retries are over or declined."""
        delay = self.delay(answer, delivery.retries)
        if delay is not None:
            return Outcome(delivery, id, None, answer.error, False, seconds, delay, exception=answer.exception)
        dead = self.bury or self.retries > 0 or answer.verdict != "failed"
        return Outcome(delivery, id, answer.result, answer.error, dead, seconds, exception=answer.exception)

    def delay(self, answer: Answer, retries: int) -> float | None:
        """When to try a task again that has been tried again `retries` times and got `answer`; None: not at all."""
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
