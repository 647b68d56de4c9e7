"""The fan-out of events to observers; an observer cannot break the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis_worker.engine.awaitables import unawaited
from redis_worker.engine.guard import is_interrupt
from redis_worker.ports import Observer
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.task import Outcome

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


class ByFunction(Observers):
    """An observer that passes each outcome to the observer of its function, and all else to that of the queue."""

    def __init__(self, of: Callable[[str], Observer], queue: str, functions: Iterable[str]) -> None:
        """`of` returns the observer of a name: `queue` is that of tasks that call no known function."""
        self._of_queue = of(queue)
        self._of_functions: dict[str | None, Observer] = {name: of(name) for name in functions}
        super().__init__((self._of_queue,))

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        for observer, some in self._parted(outcomes):
            observer.settled(some)

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        for observer, some in self._parted(outcomes):
            observer.refused(some)

    def _parted(self, outcomes: Sequence[Outcome]) -> list[tuple[Observer, list[Outcome]]]:
        parted: dict[str | None, list[Outcome]] = {}
        for outcome in outcomes:
            parted.setdefault(outcome.delivery.function, []).append(outcome)
        return [(self._of_functions.get(name, self._of_queue), some) for name, some in parted.items()]
