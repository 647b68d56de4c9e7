"""The runner of functions that run in different places: each task in its own, and one number of slots for all."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

from redis_worker.engine.runner import STRETCH, TURNS, Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.task_runner import Handling, TaskRunner
from redis_worker.vocabulary.processor import Execution
from redis_worker.vocabulary.task import Delivery


class Placing(Handling, Protocol):
    """Handles a task as a coroutine, and knows which tasks run elsewhere."""

    def place(self, delivery: Delivery) -> Execution:
        """Return where the call of a task is made; "async" where it cannot be run. Raises nothing."""
        ...


class MixedRunner(TaskRunner):
    """Starts each task in its turn, where its function belongs: coroutines here, the others by other runners.

    Those get a task when there is a slot for it, and start it at once.
    """

    def __init__(
        self, handler: Placing, settler: Settler, concurrency: int, others: Mapping[Execution, Runner]
    ) -> None:
        super().__init__(handler, settler, concurrency)
        self._place = handler.place
        self._others = others
        self._parts = tuple(others.values())
        for part in self._parts:
            part.join(self)

    @property
    def running(self) -> int:
        count = len(self._calls)
        for part in self._parts:
            count += part.running + part.pending
        return count

    @property
    def idle(self) -> bool:
        return super().idle and all(part.idle for part in self._parts)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Start `deliveries` at once where nothing is pending: a lone task waits for no turn of the loop."""
        is_free = not self._pending
        super().add(deliveries)
        if is_free:
            self._start()

    def held(self) -> list[Delivery]:
        return [*super().held(), *(delivery for part in self._parts for delivery in part.held())]

    def underway(self) -> Iterator[tuple[Any, Delivery, float]]:
        each = (super().underway(), *(part.underway() for part in self._parts))
        return heapq.merge(*each, key=lambda running: -running[2])

    def stop(self, is_meant: Callable[[Delivery], bool]) -> None:
        super().stop(is_meant)
        for part in self._parts:
            part.stop(is_meant)

    def cancel(self) -> None:
        super().cancel()
        for part in self._parts:
            part.cancel()

    async def run(self) -> None:
        await asyncio.gather(self._start_all(), *(part.run() for part in self._parts))

    async def _start_all(self) -> None:
        while True:
            await self._some_pending()
            self._start()
            if self._pending and self.running >= self._concurrency:
                self.progress.clear()
                await self.progress.wait()
            else:
                for _ in range(TURNS):
                    await asyncio.sleep(0)

    def _start(self) -> None:
        """Start pending tasks for which there are slots; inline calls hold the event loop for a stretch at most."""
        create_task, fresh = asyncio.get_running_loop().create_task, self._contexts.fresh
        free, end = self._concurrency - self.running, None
        while free > 0 and (delivery := self._pop()) is not None:
            place = self._place(delivery)
            if place == "async":
                self._calls[delivery] = create_task(self._work(delivery), context=fresh()), self._touched
                free -= 1
                continue
            self._others[place].add((delivery,))
            free = self._concurrency - self.running  # an inline call has ended
            if end is None:
                end = self._touched + STRETCH
            if perf_counter() >= end:
                return
