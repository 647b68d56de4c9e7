"""The fan-out of events to observers; an observer cannot break the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from redis_worker.engine.awaitables import unawaited
from redis_worker.engine.guard import is_interrupt
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.task import Delivery, Outcome

logger = library_logger(__name__)


class Observers(Observer):
    """An observer that forwards events to several; an exception of one is logged and changes nothing."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def _notify(self, event: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                if error := unawaited(event(observer), "the method"):  # type: ignore[func-returns-value]
                    raise error
            except BaseException as error:
                if is_interrupt(error):
                    raise
                logger.exception("the observer %s raised an exception; the work continues", type(observer).__name__)

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        self._notify(lambda observer: observer.claimed(deliveries))

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        self._notify(lambda observer: observer.settled(outcomes))

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        self._notify(lambda observer: observer.refused(outcomes))

    def released(self, deliveries: Sequence[Delivery]) -> None:
        self._notify(lambda observer: observer.released(deliveries))

    def recovered(self, worker: str, count: int) -> None:
        self._notify(lambda observer: observer.recovered(worker, count))

    def lease_lost(self, worker: str) -> None:
        self._notify(lambda observer: observer.lease_lost(worker))

    def paused(self) -> None:
        self._notify(lambda observer: observer.paused())

    def resumed(self) -> None:
        self._notify(lambda observer: observer.resumed())

    def damaged(self, error: DamagedKey) -> None:
        self._notify(lambda observer: observer.damaged(error))

    def disconnected(self, error: Exception, delay: float) -> None:
        self._notify(lambda observer: observer.disconnected(error, delay))

    def reconnected(self, seconds: float) -> None:
        self._notify(lambda observer: observer.reconnected(seconds))

    def blocked(self, seconds: float, stack: str) -> None:
        self._notify(lambda observer: observer.blocked(seconds, stack))
