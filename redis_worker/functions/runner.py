"""The runner of functions that declare different executions: an asyncio task for each of their tasks."""

from __future__ import annotations

import asyncio
from inspect import CORO_CREATED, getcoroutinestate, iscoroutine

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
        self._marks = handler.marks
        self._stopped: set[Delivery] = set()
        """The tasks that were cancelled and have not ended."""
        self._marks.on_new = self._stop_marked

    def _stop_marked(self) -> None:
        """Cancel the coroutines, and kill the processes, of tasks that are to be cancelled."""
        self._stopped.intersection_update(self._calls)
        for delivery, (task, _) in self._calls.items():
            if delivery in self._stopped or not self._marks.hold(delivery):
                continue
            # One that has not begun sees its mark when it begins.
            if _has_begun(task) and self._functions.is_stoppable(delivery):
                self._stopped.add(delivery)
                task.cancel()

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


def _has_begun(task: asyncio.Task[None]) -> bool:
    coroutine = task.get_coro()
    return iscoroutine(coroutine) and getcoroutinestate(coroutine) != CORO_CREATED
