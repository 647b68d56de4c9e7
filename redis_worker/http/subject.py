"""The interface of the worker or supervisor that the HTTP server reports on."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from redis_worker.engine.counters import Counters
from redis_worker.vocabulary.service import READY, Condition, Consuming, PartStatus


class Served(Protocol):
    """A WorkerPool or a TopicWorker."""

    @property
    def service(self) -> str:
        """The name in answers."""

    @property
    def condition(self) -> Condition:
        """The current condition."""

    @property
    def counters(self) -> Counters:
        """The counters since its start."""

    def consuming(self) -> list[Consuming]:
        """Return the queues that it claims from."""


@runtime_checkable
class Supervised(Served, Protocol):
    """A supervisor: ready while all of its parts are ready and it is not stopping."""

    def parts(self) -> list[PartStatus]:
        """Return the state of each part, in the order of the file."""


def not_ready(service: Served) -> str | None:
    """Return the reason why `service` is not ready, in one sentence; None if it is ready."""
    if not isinstance(service, Supervised):
        if service.condition != "running":
            return service.condition
        return None if service.consuming() else "nothing is consumed"
    if service.condition == "stopping":
        return "stopping"
    if not service.parts():
        return "no part runs"
    return "; ".join(_described(part) for part in service.parts() if part.state not in READY) or None


def _described(part: PartStatus) -> str:
    return f"{part.name}: {part.state}{f' ({part.error})' if part.error else ''}"
