"""The task that the running code belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from redis_worker.engine.lifespan import current_resources
from redis_worker.vocabulary.task import RUNNING


@dataclass(frozen=True, slots=True)
class CurrentTask:
    """The task that a function runs for."""

    id: str
    function: str
    """The name of the function in its queue."""
    queue: str
    """The list that the task came from."""
    attempt: int
    """1 for the first run, plus 1 for each other one."""
    deadline: float | None
    """The end of the time limit, in seconds since the epoch; None without a limit."""
    running: Running | None = field(default=None, repr=False, compare=False)
    """The task itself; None in the description that a child process gets."""

    @property
    def cancelled(self) -> bool:
        """True once the task is to be cancelled: a function in a thread then returns as soon as it can.

        A coroutine is cancelled, and a child process is killed.
        """
        return self.running is not None and self.running.is_cancelled()

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress, as often as you like: the last report is written, four times a second at most.

        `done` of `total` (None: unknown), with a text for people. `handle.progress()` reads it.
        """
        if self.running is not None:
            self.running.report(done, total, message)

    @property
    def resources(self) -> Any:
        """What the lifespan has yielded. Raises LookupError without a lifespan."""
        return current_resources()


class Running(Protocol):
    """A task that runs; it is described when somebody asks, since few functions do."""

    def current(self) -> CurrentTask:
        """Return its description."""
        ...

    def is_cancelled(self) -> bool:
        """Return True once it is to be cancelled."""
        ...

    def report(self, done: float, total: float | None, message: str | None) -> None:
        """Report progress."""


def current_task() -> CurrentTask:
    """Return the task that this code runs for. Raises LookupError outside of a function of a TaskQueue."""
    running = RUNNING.get()  # set in the context of each call: of a coroutine, in a thread and in a process
    if not hasattr(running, "current"):
        raise LookupError("no task runs here: current_task() is for functions of a TaskQueue")
    return running.current()  # type: ignore[no-any-return]
