"""The runner of asyncio tasks whose calls are made in threads, among other places."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from redis_worker.engine.guard import escaped
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.engine.task_runner import Handling, TaskRunner
from redis_worker.vocabulary.task import Delivery


class Keeping(Handling, Protocol):
    """Handles a task as a coroutine, and knows what goes on after its outcome."""

    def leftover(self, delivery: Delivery) -> asyncio.Future[Any] | None:
        """Return the call of a task that goes on after its time limit; see CallGuard."""
        ...


class KeepingRunner(TaskRunner):
    """Runs each task as an asyncio task, which keeps its slot until a thread has ended too."""

    def __init__(self, handler: Keeping, settler: Settler, concurrency: int, shared: Slots | None = None) -> None:
        super().__init__(handler, settler, concurrency, shared)
        self._keeping = handler

    async def _work(self, call: Delivery) -> None:
        try:
            try:
                outcome = await self._keeping.handle(call)
            except Exception as error:
                outcome = escaped(call, error)
            self._finish((outcome,))
            if (leftover := self._keeping.leftover(call)) is not None:
                await asyncio.wait({leftover})
        finally:
            self._end(call)
