"""The runner of functions that declare different executions: an asyncio task for each of their tasks."""

from __future__ import annotations

import asyncio

from redis_worker.engine.guard import escaped
from redis_worker.engine.settler import Settler
from redis_worker.engine.task_runner import TaskRunner
from redis_worker.functions.handling import FunctionHandler
from redis_worker.vocabulary.task import Delivery


class FunctionRunner(TaskRunner):
    """Runs each task as an asyncio task, which keeps its slot until a thread has ended too."""

    def __init__(self, handler: FunctionHandler, settler: Settler, concurrency: int) -> None:
        super().__init__(handler, settler, concurrency)
        self._functions = handler

    async def _work(self, call: Delivery) -> None:
        try:
            try:
                outcome = await self._functions.handle(call)
            except Exception as error:
                outcome = escaped(call, error)
            self._finish((outcome,))
            if (leftover := self._functions.leftover(call)) is not None:
                await asyncio.wait({leftover})
        finally:
            self._end(call)
