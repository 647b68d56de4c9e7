"""What a supervisor runs: one life of a part, whatever kind of part it is."""

from __future__ import annotations

from typing import Protocol

from redis_worker.engine.running import RunningTask
from redis_worker.vocabulary.service import Consuming, PartState


class Work(Protocol):
    """Runs once, in the running event loop: a pool, a topic worker, a daemon, a cron job, or a process with one."""

    async def run(self) -> None:
        """Work until stopped, or done. What it raises is a failure of its part."""

    def stop(self) -> None:
        """Begin nothing more, and end when what has begun is done."""

    def cancel(self) -> None:
        """End at once."""

    @property
    def condition(self) -> PartState:
        """How it stands."""

    def consuming(self) -> list[Consuming]:
        """The queues it claims from just now."""

    def running_tasks(self) -> list[RunningTask]:
        """What it runs just now, oldest first, as far as that can be seen from here; to be called on the event loop."""
