"""Tasks whose settlement or release got no reply, so that the server may have executed it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from redis_worker.vocabulary.task import Delivery

T = TypeVar("T")


class Unanswered:
    """The tasks of calls without a reply, until a later call for them is answered.

    A repeated call may not find its tasks in flight because the first one was executed. A first call finds them,
    unless somebody deleted the in-flight list.
    """

    def __init__(self) -> None:
        self._deliveries: dict[int, Delivery] = {}

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Enter `deliveries`: a call for them got no reply."""
        self._deliveries |= {id(delivery): delivery for delivery in deliveries}

    def remove(self, deliveries: Iterable[Delivery]) -> None:
        """Remove `deliveries`: a call for them is answered."""
        if self._deliveries:
            for delivery in deliveries:
                self._deliveries.pop(id(delivery), None)

    def split(self, items: Sequence[T], delivery: Callable[[T], Delivery]) -> list[tuple[Sequence[T], bool]]:
        """Return `items` in groups: those of first calls, and those of repeated ones (True)."""
        if not self._deliveries:
            return [(items, False)]
        repeated = [item for item in items if id(delivery(item)) in self._deliveries]
        first = [item for item in items if id(delivery(item)) not in self._deliveries]
        return [(group, flag) for group, flag in ((first, False), (repeated, True)) if group]
