"""Batches: a handler that is called with many messages at once, and says which of them have failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from time import perf_counter
from typing import Any

from redis_worker.engine.execution import Answer, Execution, judged
from redis_worker.engine.guard import CallGuard, escaped
from redis_worker.engine.reading import Read
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.runner import Runner, Running
from redis_worker.engine.running import RunningTask, running_task
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.engine.waiting import happens
from redis_worker.vocabulary.error_text import cut, error_text, is_a
from redis_worker.vocabulary.message import Message
from redis_worker.vocabulary.payload import failure, loads, success
from redis_worker.vocabulary.task import Delivery, Outcome


def failures(returned: Any, messages: Sequence[Message]) -> dict[str, list[Any]]:
    """What a batch handler has returned, as id -> [verdict, reason, delay], which JSON can hold.

    Raises TypeError or ValueError where it is neither None nor a mapping from ids of `messages` to reasons.
    """
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise TypeError(f"a batch handler returns None, or {{id: reason}} of what has failed; got {returned!r}")
    known = {message.id for message in messages}
    if unknown := [id for id in returned if id not in known]:
        raise ValueError(f"a batch handler has returned the id {unknown[0]!r}, which is not in its batch")
    return {id: _failure(reason) for id, reason in returned.items()}


def _failure(reason: Any) -> list[Any]:
    if is_a(reason, BaseException):
        error, verdict, delay = judged(reason)
        return [verdict, error_text(error), delay]
    return ["failed", cut(str(reason)), None]


class BatchHandler(CallGuard):
    """The way from deliveries to their outcomes by one call of a handler, whose value is its failures."""

    def __init__(self, read: Read, execution: Execution, timeout: float | None, policy: RetryPolicy) -> None:
        super().__init__(timeout)
        self._read = read
        self._execution = execution
        self._policy = policy

    async def handle(self, deliveries: Sequence[Delivery]) -> tuple[list[Outcome], asyncio.Future[Any] | None]:
        """Return the outcomes, each with its share of the time, and the call where it goes on after its time limit."""
        outcomes: list[Outcome] = []
        readable: list[tuple[Delivery, str]] = []
        messages: list[Message] = []
        for delivery in deliveries:
            read = self._read(delivery)
            if isinstance(read, Outcome):
                outcomes.append(read)
            else:
                readable.append((delivery, read[0]))
                messages.append(read[1])
        if not messages:
            return outcomes, None
        started = perf_counter()  # the loop's clock may have a step of 1 ms
        answer, leftover = await self._call(messages)
        seconds = (perf_counter() - started) / len(messages)
        answered = _answers(answer)
        for delivery, id in readable:
            outcomes.append(self._outcome(delivery, id, answered(id), seconds))
        return outcomes, leftover

    async def _call(self, messages: list[Message]) -> tuple[Answer, asyncio.Future[Any] | None]:
        try:
            return await self._execution.call(messages), None
        except BaseException as error:
            return self.caught(error)

    def _outcome(self, delivery: Delivery, id: str, answer: Answer | None, seconds: float) -> Outcome:
        if answer is None:
            return Outcome(delivery, id, success(None), seconds=seconds)
        return self._policy.outcome(delivery, id, answer, seconds)


def _answers(answer: Answer) -> Callable[[str], Answer | None]:
    """The error of each message, by its id; None for one that succeeded."""
    if answer.error is not None:
        return lambda _: answer
    failed = loads(answer.result)["result"]

    def of(id: str) -> Answer | None:
        if id not in failed:
            return None
        verdict, reason, delay = failed[id]
        text = f"Processing error: {reason}"
        return Answer(failure(text), text, verdict, delay)

    return of


class BatchRunner(Runner):
    """Calls the handler with as many messages as have come within a time; each call takes a slot."""

    def __init__(
        self,
        handler: BatchHandler,
        settler: Settler,
        concurrency: int,
        shared: Slots | None,
        *,
        size: int,
        within: float,
    ) -> None:
        """A batch has up to `size` messages, and waits `within` seconds for them after its first one."""
        super().__init__(settler, concurrency)
        self._handler = handler
        self._slots = Slots(concurrency)
        self._shared = shared or Slots(concurrency)
        self._size = size
        self._within = within
        self._batches: dict[asyncio.Task[None], tuple[list[Delivery], float]] = {}

    @property
    def running(self) -> int:
        return len(self._batches)

    def room(self) -> int:
        free = min(self._concurrency - self.running, max(1, self._shared.free))
        return max(0, free * self._size - len(self._pending))

    def stalled(self, seconds: float) -> bool:
        return super().stalled(self._within + seconds)

    def held(self) -> list[Delivery]:
        return [*super().held(), *(delivery for batch, _ in self._batches.values() for delivery in batch)]

    def longest(self, limit: int) -> list[Running]:
        now = perf_counter()
        running = (Running(delivery, now - since) for batch, since in self._batches.values() for delivery in batch)
        return list(islice(running, limit))

    def running_tasks(self) -> list[RunningTask]:
        now = perf_counter()
        return [
            running_task(task, delivery.raw, now - since)
            for task, (batch, since) in self._batches.items()
            for delivery in batch
        ]

    def cancel(self) -> None:
        self._handler.cancelled = True
        for task in self._batches:
            task.cancel()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._slots.take()
            try:
                batch = await self._next()
            except asyncio.CancelledError:
                self._slots.give_back()
                raise
            task = loop.create_task(self._work(batch), context=self._contexts.fresh())
            self._batches[task] = batch, self._touched

    async def _next(self) -> list[Delivery]:
        """The next batch, with a shared slot for it."""
        while True:
            await self._some_pending()
            await self._filled()
            await self._shared.take()  # what is pending may be handed back meanwhile
            batch: list[Delivery] = []
            while len(batch) < self._size and (delivery := self._pop()) is not None:
                batch.append(delivery)
            if batch:
                return batch
            self._shared.give_back()

    async def _filled(self) -> None:
        """Wait until a whole batch is pending, or its time is over."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._within
        while 0 < len(self._pending) < self._size and (left := end - clock()) > 0:
            self._arrived.clear()
            await happens(self._arrived, left)

    async def _work(self, batch: list[Delivery]) -> None:
        try:
            try:
                outcomes, leftover = await self._handler.handle(batch)
            except Exception as error:
                outcomes, leftover = [escaped(delivery, error) for delivery in batch], None
            self._settler.add(outcomes)
            if leftover is not None:
                await asyncio.wait({leftover})
        finally:
            del self._batches[asyncio.current_task()]  # type: ignore[arg-type] # it is one of them
            self._slots.give_back()
            self._shared.give_back()
            self.progress.set()
