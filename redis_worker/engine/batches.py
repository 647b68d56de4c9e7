"""Batches: one call of a handler for many messages, which returns those that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from redis_worker.engine.execution import Answer, Execution, judged
from redis_worker.engine.guard import CallGuard
from redis_worker.engine.reading import Read
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.runner import TaskRunner
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.engine.waiting import happens
from redis_worker.vocabulary.error_text import cut, error_text, is_a
from redis_worker.vocabulary.message import Message
from redis_worker.vocabulary.payload import failure, loads, success
from redis_worker.vocabulary.task import Delivery, Outcome


def failures(returned: Any, messages: Sequence[Message]) -> dict[str, list[Any]]:
    """Return the failures that a batch handler returned, as id -> [verdict, reason, delay], which JSON can hold.

    Raises TypeError or ValueError where `returned` is neither None nor a mapping from ids of `messages` to reasons.
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
    try:
        return ["failed", cut(str(reason)), None]
    except Exception as error:  # it concerns this message alone
        return ["failed", error_text(error, named=True), None]


class BatchHandler(CallGuard):
    """Turns a batch of deliveries into outcomes by one call of a handler, which returns the failures."""

    def __init__(self, read: Read, execution: Execution, timeout: float | None, policy: RetryPolicy) -> None:
        super().__init__(timeout)
        self._read = read
        self._execution = execution
        self._policy = policy

    async def handle(self, batch: Sequence[Delivery]) -> tuple[list[Outcome], asyncio.Future[Any] | None]:
        """Return the outcomes, each with its share of the time, and the call where it goes on after its time limit."""
        outcomes: list[Outcome] = []
        readable: list[tuple[Delivery, str]] = []
        messages: list[Message] = []
        for delivery in batch:
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
    """Return a function from a message's id to its error, None for one that succeeded."""
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


class BatchRunner(TaskRunner):
    """Runs batches of the messages that arrive within a time."""

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
        """A batch has up to `size` messages, and waits `within` seconds for more after its first one."""
        self._free = shared or Slots(concurrency)
        super().__init__(handler, settler, concurrency, self._free)
        self._size = size
        self._within = within

    def room(self) -> int:
        free = min(self._concurrency - self.running, max(1, self._free.free))
        return max(0, free * self._size - len(self._pending))

    def stalled(self, seconds: float) -> bool:
        return super().stalled(self._within + seconds)

    async def _some_pending(self) -> None:
        """Wait until a whole batch is pending, or the time of the first message is over."""
        await super()._some_pending()
        clock = asyncio.get_running_loop().time
        end = clock() + self._within
        while 0 < len(self._pending) < self._size and (left := end - clock()) > 0:
            self._arrived.clear()
            await happens(self._arrived, left)

    def _pop(self) -> Sequence[Delivery]:
        self._touched = perf_counter()
        batch: list[Delivery] = []
        while self._pending and len(batch) < self._size:
            delivery = self._pending.popleft()
            if not delivery.receipt.lost:
                batch.append(delivery)
        return batch
