"""The handle of a task: its state and its result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Generic, Literal, TypeVar, cast

from redis_worker.functions.inputs import Awaited
from redis_worker.functions.progress import Progress
from redis_worker.functions.transport import Linked
from redis_worker.functions.values import from_json
from redis_worker.vocabulary.checks import check_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import TaskError
from redis_worker.vocabulary.ids import id_text
from redis_worker.vocabulary.payload import CANCELLED

R = TypeVar("R")

TaskStatus = Literal["pending", "succeeded", "failed", "cancelled"]
"""The state of a task: "pending" until there is a result, and again once the result has expired."""


class Handle(Awaited, Generic[R]):
    """A task, by its queue and its id."""

    def __init__(self, queue: Linked, id: str | int, result: Any = Any) -> None:
        """`result` is the type of the result; without it, the result is the JSON value."""
        self.queue: Linked = queue
        self.id = id_text(id)
        self._kind = result

    @property
    def as_input(self) -> R:
        """Stand for the result in the arguments of a call: `resize.submit(download.as_input)`.

        The task then waits until this one is answered. It has the type of the result, for type checkers, and no value.
        """
        return cast(R, self)

    async def result(self, timeout: Duration | None = None) -> R:
        """Return the result, waiting up to `timeout` (None: for ever).

        Raises TaskError if the task has failed, TimeoutError if there is no result in time, Disconnected and Refused.
        """
        return self._typed(await self.queue.transport.result(self.id, timeout))

    def result_sync(self, timeout: Duration | None = None) -> R:
        """Return what `result` returns, for code without an event loop."""
        return self._typed(self.queue.run_sync(self.queue.transport.result, self.id, timeout))

    async def status(self) -> TaskStatus:
        """Return the state of the task. Raises Disconnected and Refused."""
        try:
            await self.queue.transport.result(self.id, 0)
        except TimeoutError:
            return "pending"
        except TaskError as error:
            return "cancelled" if error.error == CANCELLED else "failed"
        return "succeeded"

    def status_sync(self) -> TaskStatus:
        """Return what `status` returns, for code without an event loop."""
        return self.queue.run_sync(self.status)

    async def progress(self) -> Progress | None:
        """Return the last report of the task, kept for a day; None without one. Raises Disconnected and Refused."""
        return await self.queue.transport.progress(self.id)

    def progress_sync(self) -> Progress | None:
        """Return what `progress` returns, for code without an event loop."""
        return self.queue.run_sync(self.progress)

    async def watch(self, every: Duration = 0.25) -> AsyncGenerator[Progress, None]:
        """Yield each report that is new at a look `every` so many seconds, until the task is answered.

        The last report comes at the end, if it is new. Raises Disconnected and Refused.
        """
        seconds, last = check_seconds("every", every, above=0), None
        while True:
            is_answered = await self.status() != "pending"
            found = await self.progress()
            if found is not None and found != last:
                last = found
                yield found
            if is_answered:
                return
            await asyncio.sleep(seconds)

    async def cancel(self) -> bool:
        """Cancel the task. Return False if it is answered already, or is not found.

        A task that waits or is delayed is removed. One that runs is cancelled by its worker: a coroutine gets
        CancelledError, a child process is killed, a thread sees `current_task().cancelled`. The result is then the
        error "cancelled", for which `result` raises TaskError. Raises Disconnected and Refused.
        """
        return await self.queue.transport.cancel(self.id)

    def cancel_sync(self) -> bool:
        """Do what `cancel` does, for code without an event loop."""
        return self.queue.run_sync(self.cancel)

    async def forget(self) -> bool:
        """Delete the result. Return False if there was none. Raises Disconnected and Refused."""
        return await self.queue.transport.forget(self.id)

    def forget_sync(self) -> bool:
        """Do what `forget` does, for code without an event loop."""
        return self.queue.run_sync(self.forget)

    def _typed(self, value: Any) -> R:
        typed: R = from_json(value, self._kind)
        return typed

    def __repr__(self) -> str:
        return f"<task {self.id} of the queue {self.queue.name}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Handle):
            return NotImplemented
        return (self.queue, self.id) == (other.queue, other.id)

    def __hash__(self) -> int:
        return hash((id(self.queue), self.id))
