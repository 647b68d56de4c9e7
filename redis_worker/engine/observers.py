"""The fan-out of events to observers; an observer cannot break the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from redis_worker.engine.awaitables import unawaited
from redis_worker.engine.guard import is_interrupt
from redis_worker.ports import Observer
from redis_worker.vocabulary.logger import library_logger

logger = library_logger(__name__)


class Observers(Observer):
    """An observer that forwards every event to several; an exception of one is logged and changes nothing."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)


def _forwarding(event: str) -> Callable[..., None]:
    def forward(self: Observers, *arguments: Any) -> None:
        for observer in self._observers:
            try:
                if error := unawaited(getattr(observer, event)(*arguments), "the method"):
                    raise error
            except BaseException as error:
                if is_interrupt(error):
                    raise
                logger.exception("the observer %s raised an exception; the work continues", type(observer).__name__)

    return forward


for _event in (name for name in vars(Observer) if not name.startswith("_")):
    setattr(Observers, _event, _forwarding(_event))
