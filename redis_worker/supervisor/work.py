"""The interface of the work that a supervisor runs for a part of any kind."""

from __future__ import annotations

from typing import Protocol

from redis_worker.engine.running import RunningTask
from redis_worker.vocabulary.service import Consuming, PartState


class Work(Protocol):
    """One run of a part in the event loop: a pool, topic worker, daemon, cron job, or a process with one."""

    async def run(self) -> None:
        """Work until stopped or done. An exception is a failure of the part."""

    def stop(self) -> None:
        """Start nothing more, and end when the started tasks are done."""

    def cancel(self) -> None:
        """Stop at once."""

    @property
    def condition(self) -> PartState:
        """The state of the work."""

    def consuming(self) -> list[Consuming]:
        """Return the queues that it claims from."""

    def running_tasks(self) -> list[RunningTask]:
        """Return the running tasks, oldest first, as far as they are known; call it on the event loop."""
