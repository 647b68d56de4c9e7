"""Services with one consumer: pools and Kafka workers."""

from __future__ import annotations

from redis_worker.engine.counters import Counters, Counting
from redis_worker.engine.running import RunningTask
from redis_worker.service.consumer import Consumer
from redis_worker.service.service import Service
from redis_worker.vocabulary.service import Condition


class ConsumerService(Service):
    """A service with one consumer, which exists once work begins."""

    _counting: Counting
    _consumer: Consumer | None = None

    @property
    def counters(self) -> Counters:
        """Counts of the tasks so far."""
        return self._counting.counters

    @property
    def running(self) -> int:
        """How many tasks (or batches) are running."""
        return self._consumer.running if self._consumer else 0

    def running_tasks(self) -> list[RunningTask]:
        """Return the running tasks, oldest first: id, age and stack of each; call it on the event loop.

        Inline calls are never among them: none is under way while the event loop does anything else.
        """
        return self._consumer.running_tasks() if self._consumer else []

    def _condition_at_work(self) -> Condition:
        assert self._consumer is not None
        return self._consumer.condition

    def _stop_work(self) -> None:
        assert self._consumer is not None
        self._consumer.stop()

    def _cancel_work(self) -> None:
        assert self._consumer is not None
        self._consumer.cancel()
