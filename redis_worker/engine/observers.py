"""Telling observers: all of them, and none of them can break the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.task import Delivery, Outcome

logger = library_logger(__name__)


class Observers(Observer):
    """Passes every event on to each observer; what one raises is logged and changes nothing."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                event(observer)
            except Exception:
                logger.exception("the observer %s failed; the work goes on", type(observer).__name__)

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        self._tell(lambda observer: observer.claimed(deliveries))

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        self._tell(lambda observer: observer.settled(outcomes))

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        self._tell(lambda observer: observer.refused(outcomes))

    def released(self, deliveries: Sequence[Delivery]) -> None:
        self._tell(lambda observer: observer.released(deliveries))

    def recovered(self, worker: str, count: int) -> None:
        self._tell(lambda observer: observer.recovered(worker, count))

    def lease_lost(self, worker: str) -> None:
        self._tell(lambda observer: observer.lease_lost(worker))

    def paused(self) -> None:
        self._tell(lambda observer: observer.paused())

    def resumed(self) -> None:
        self._tell(lambda observer: observer.resumed())

    def damaged(self, error: DamagedKey) -> None:
        self._tell(lambda observer: observer.damaged(error))

    def disconnected(self, error: Exception, delay: float) -> None:
        self._tell(lambda observer: observer.disconnected(error, delay))

    def reconnected(self, seconds: float) -> None:
        self._tell(lambda observer: observer.reconnected(seconds))

    def blocked(self, seconds: float, stack: str) -> None:
        self._tell(lambda observer: observer.blocked(seconds, stack))
