"""The runner of functions that declare different executions: an asyncio task each, which a mark cancels."""

from __future__ import annotations

import asyncio
from inspect import CORO_CREATED, getcoroutinestate, iscoroutine

from redis_worker.engine.gated_runner import Gated
from redis_worker.engine.keeping_runner import KeepingRunner
from redis_worker.engine.settler import Settler
from redis_worker.functions.handling import FunctionHandler
from redis_worker.vocabulary.task import Delivery


class FunctionRunner(KeepingRunner):
    """Runs each task as an asyncio task, and ends those that are to be cancelled."""

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


class GatedFunctionRunner(Gated, FunctionRunner):
    """The same for functions under limits."""


def _has_begun(task: asyncio.Task[None]) -> bool:
    coroutine = task.get_coro()
    return iscoroutine(coroutine) and getcoroutinestate(coroutine) != CORO_CREATED
