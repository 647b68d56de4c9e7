"""Batches: one call of a handler for many messages, which returns those that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

from redis_worker.engine.execution import Answer, Encode, Execution, Verdict, judged, refusal
from redis_worker.engine.guard import CallGuard, escaped
from redis_worker.engine.reading import Read
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.engine.task_runner import CallRunner
from redis_worker.engine.waiting import happens
from redis_worker.vocabulary.error_text import cut, error_text, is_a
from redis_worker.vocabulary.message import Message
from redis_worker.vocabulary.payload import failure, success
from redis_worker.vocabulary.task import Delivery, Outcome


class Failed(NamedTuple):
    """The failure of one message of a batch."""

    verdict: Verdict
    reason: str
    delay: float | None
    """The delay of a "retry" in seconds, if the handler set one."""


def failures(returned: Any, messages: Sequence[Message]) -> list[Failed | None]:
    """Return the failures that a batch handler returned, one entry for each of `messages`.

    Raises TypeError or ValueError where `returned` is neither None nor a mapping from ids of `messages` to reasons.
    """
    if returned is None:
        return [None] * len(messages)
    if not isinstance(returned, Mapping):
        raise TypeError(f"a batch handler returns None, or {{id: reason}} of what has failed; got {returned!r}")
    known = {message.id for message in messages}
    if unknown := [id for id in returned if id not in known]:
        raise ValueError(f"a batch handler has returned the id {unknown[0]!r}, which is not in its batch")
    failed = {id: failure_of(reason) for id, reason in returned.items()}
    return [failed.get(message.id) for message in messages]


def failure_of(reason: Any) -> Failed:
    """Return the failure for a reason: an exception, or anything with a text. Never raises."""
    if is_a(reason, BaseException):
        error, verdict, delay = judged(reason)
        return Failed(verdict, error_text(error), delay)
    try:
        return Failed("failed", cut(str(reason)), None)
    except Exception as error:  # it concerns this message alone
        return Failed("failed", error_text(error, named=True), None)


class BatchHandler(CallGuard):
    """Turns a batch of deliveries into outcomes by one call of a handler, which returns a value or failure for each."""

    def __init__(
        self,
        read: Read,
        execution: Execution,
        timeout: float | None,
        policy: RetryPolicy,
        encode: Encode = success,
    ) -> None:
        """`execution` encodes nothing (see `unencoded`): `encode` is called with the value of each message."""
        super().__init__(timeout)
        self._encode = encode
        self._read = read
        self._execution = execution
        self._policy = policy

    async def handle(self, batch: Sequence[Delivery]) -> tuple[list[Outcome], asyncio.Future[Any] | None]:
        """Return the outcomes, each with its share of the time, and the call where it goes on after its time limit."""
        outcomes: list[Outcome] = []
        readable: list[Delivery] = []
        messages: list[Message] = []
        for delivery in batch:
            read = self._read(delivery)
            if isinstance(read, Outcome):
                outcomes.append(read)
            else:
                readable.append(delivery)
                messages.append(read[1])
        if not messages:
            return outcomes, None
        started = perf_counter()  # the loop's clock may have a step of 1 ms
        answer, leftover = await self._call(messages)
        seconds = (perf_counter() - started) / len(messages)
        values = [answer] * len(messages) if answer.error is not None else answer.result
        for delivery, message, value in zip(readable, messages, values, strict=True):
            outcomes.append(self._outcome(delivery, message.id, value, seconds))
        return outcomes, leftover

    async def _call(self, messages: list[Message]) -> tuple[Answer, asyncio.Future[Any] | None]:
        try:
            return await self._execution.call(messages), None
        except BaseException as error:
            return self.caught(error)

    def _outcome(self, delivery: Delivery, id: str, value: Any, seconds: float) -> Outcome:
        """Return the outcome of one message: `value` is its error as an Answer, its Failed, or what it gave."""
        kind = type(value)
        if kind is Failed:
            text = f"Processing error: {value.reason}"
            value = Answer(failure(text), text, value.verdict, value.delay)
        elif kind is not Answer:
            try:
                return Outcome(delivery, id, self._encode(value), None, False, seconds)
            except Exception as error:
                value = refusal("Processing error", error)
        return self._policy.outcome(delivery, id, value, seconds)


Batch: TypeAlias = tuple[Delivery, ...]


class BatchRunner(CallRunner[Batch]):
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
        self._handler = handler
        self._least = size
        self._within = within
        self._patience += within

    def room(self, ahead: bool) -> int:  # noqa: ARG002 - a batch is claimed when it can start
        free = min(self._concurrency - self.running, max(1, self._free.free))
        return max(0, free * self._least - len(self._pending))

    async def _some_pending(self) -> None:
        """Wait until a whole batch is pending, or the time of the first message is over."""
        await super()._some_pending()
        clock = asyncio.get_running_loop().time
        end = clock() + self._within
        while 0 < len(self._pending) < self._least and (left := end - clock()) > 0:
            self._arrived.clear()
            await happens(self._arrived, left)

    def _tasks_of(self, call: Batch) -> Batch:
        return call

    def _pop(self) -> Batch:
        self._touched = perf_counter()
        batch: list[Delivery] = []
        while self._pending and len(batch) < self._least:
            delivery = self._pending.popleft()
            if not delivery.receipt.lost:
                batch.append(delivery)
        return tuple(batch)

    async def _work(self, call: Batch) -> None:
        try:
            try:
                outcomes, leftover = await self._handler.handle(call)
            except Exception as error:
                outcomes, leftover = [escaped(delivery, error) for delivery in call], None
            self._finish(outcomes)
            if leftover is not None:
                await asyncio.wait({leftover})
        finally:
            self._end(call)
