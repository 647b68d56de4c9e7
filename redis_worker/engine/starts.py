"""The moments at which calls really start: in a thread or a process, later than they are let."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from redis_worker.engine.child_calls import send_to_parent
from redis_worker.engine.execution import Answer
from redis_worker.engine.processes import Processes

STARTED: ContextVar[Callable[[], None]] = ContextVar("STARTED")
"""Called, in any thread, when the task of the context starts; without a value in a child process."""

_HAS_STARTED = "started"


class Noted:
    """A function that notes the start of each call."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call

    def __call__(self, arguments: Any) -> Any:
        note = STARTED.get(None)
        if note is None:
            send_to_parent(_HAS_STARTED)
        else:
            note()
        return self._call(arguments)


def receiver(report: Callable[[Any], None] = lambda _: None) -> Callable[[Any], None]:
    """Return the receiver of messages from a child: it notes the start of the call; other messages go to `report`."""
    note = STARTED.get(None)

    def receive(message: Any) -> None:
        if message != _HAS_STARTED:
            report(message)
        elif note is not None:  # a task without a limit, beside others, has nobody to notify
            note()

    return receive


class NotedInProcesses:
    """Calls of a noted function in child processes."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    async def call(self, arguments: Any) -> Answer:
        return await self._processes.call(arguments, receiver())

    def close(self) -> None:
        self._processes.close()
