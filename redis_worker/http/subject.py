"""What the HTTP server asks of the worker, or of the supervisor, that it stands beside."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from redis_worker.engine.counters import Counters
from redis_worker.vocabulary.service import READY, Condition, Consuming, PartStatus


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


@runtime_checkable
class Supervised(Served, Protocol):
    """A supervisor: it is ready when each of its parts is, and it is not stopping."""

    def parts(self) -> list[PartStatus]:
        """How each part stands, in the order of the file."""


def not_ready(service: Served) -> str | None:
    """Why `service` is not ready, in one sentence; None where it is."""
    if not isinstance(service, Supervised):
        if service.condition != "running":
            return service.condition
        return None if service.consuming() else "nothing is consumed"
    if service.condition == "stopping":
        return "stopping"
    if not service.parts():
        return "no part runs"
    return "; ".join(_told(part) for part in service.parts() if part.state not in READY) or None


def _told(part: PartStatus) -> str:
    return f"{part.name}: {part.state}{f' ({part.error})' if part.error else ''}"
