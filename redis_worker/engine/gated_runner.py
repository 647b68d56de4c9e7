"""The runner of tasks under limits: a gate lets each of them start, and one that has to wait frees its slot."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, Protocol

from redis_worker.engine.keeping_runner import KeepingRunner
from redis_worker.engine.task_runner import TaskRunner
from redis_worker.vocabulary.task import Delivery


class Gate(Protocol):
    """Decides which tasks may start."""

    async def may_start(self, delivery: Delivery) -> bool:
        """Return False if the task must wait: this worker does not hold it any more. May be called again."""
        ...


class Gated(TaskRunner):
    """A mixin: runs each task once the gate lets it start."""

    def __init__(self, gate: Gate, *args: Any) -> None:
        super().__init__(*args)
        self._gate = gate

    async def _work(self, call: Delivery) -> None:
        asked = perf_counter()
        try:
            may_start = await self._ask(call)
        except BaseException:
            self._end(call)
            raise
        if (waited := perf_counter() - asked) > self._pace.longest:  # the next task waits for the slot that long, too
            self._pace.note(waited)
        if may_start:
            await super()._work(call)
        else:
            self._end(call)

    async def _ask(self, call: Delivery) -> bool:
        while True:
            try:
                return await self._gate.may_start(call)
            except asyncio.CancelledError:
                # A task that is to be cancelled is answered where it is: the gate may have put it off.
                if self._guard.cancelled:
                    raise


class GatedRunner(Gated, KeepingRunner):
    """Runs each task as an asyncio task, once the gate lets it start."""
