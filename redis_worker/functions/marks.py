"""The tasks of a worker that are to be cancelled."""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import sha1

from redis_worker.vocabulary.payload import CANCELLED, failure
from redis_worker.vocabulary.task import Delivery, Outcome


class Marks:
    """The marks of tasks that are to be cancelled, as Redis has them; a mark is the digest of the raw task."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        """All marks, read by threads too; most often there is none."""
        self.on_new: Callable[[], None] = lambda: None
        """Called when a mark was added."""
        self.on_unique: Callable[[], None] = lambda: None
        """Called when a unique task was read, by a thread too."""

    def update(self, marks: Collection[str]) -> None:
        """Take over the marks in Redis."""
        is_new = not self.known.issuperset(marks)
        self.known.intersection_update(marks)
        self.known.update(marks)
        if is_new:
            self.on_new()

    def hold(self, delivery: Delivery) -> bool:
        """Return True if the task is to be cancelled."""
        return bool(self.known) and digest(delivery) in self.known


def digest(delivery: Delivery) -> str:
    """Return the mark of a task. SHA-1, because the scripts have no other."""
    return sha1(delivery.raw).hexdigest()  # noqa: S324


def cancelled(delivery: Delivery, id: str, seconds: float = 0.0) -> Outcome:
    """Return the outcome of a task that was cancelled: an error, never retried."""
    return Outcome(delivery, id, failure(CANCELLED), CANCELLED, False, seconds)
