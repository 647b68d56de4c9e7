"""What the HTTP server asks of the worker it stands beside."""

from __future__ import annotations

from typing import Protocol

from redis_worker.engine.counters import Counters
from redis_worker.vocabulary.service import Condition, Consuming


class Served(Protocol):
    """A WorkerPool or a TopicWorker."""

    @property
    def service(self) -> str:
        """What it is called in answers."""

    @property
    def condition(self) -> Condition:
        """How it stands."""

    @property
    def counters(self) -> Counters:
        """What it has done so far."""

    def consuming(self) -> list[Consuming]:
        """The queues it claims from just now."""
