"""What the engine needs of the world, as Protocols; the broker and the leaves provide it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from redis_worker.vocabulary.errors import DamagedKey, Unacceptable
from redis_worker.vocabulary.task import Delivery, Outcome

Parser: TypeAlias = Callable[[Any], list[Any]]
"""Turns the member `task` into the processor's arguments; raises ValueError on what it refuses."""

Processor: TypeAlias = Callable[[list[Any]], Any] | Callable[[list[Any]], Awaitable[Any]]
"""Does the work: arguments to JSON value, `async` or plain."""


class Unwritten(Exception):
    """Raised by `settle`: some outcomes are not written, and still in flight. All others are written."""

    def __init__(
        self, left: Sequence[tuple[DamagedKey | Unacceptable, Sequence[Outcome]]], refused: Sequence[Outcome]
    ) -> None:
        """`refused` is what `settle` would have returned, `left` what is not written, and why.

        What needs a DamagedKey can be written once that is mended; what is Unacceptable, in smaller pieces, or with
        less in it.
        """
        super().__init__("some outcomes are not written")
        self.left = left
        self.refused = refused


class Queue(Protocol):
    """A source of tasks that outcomes are written to. Raises Disconnected or Refused, nothing of its driver's."""

    @property
    def worker(self) -> str:
        """The name this worker is known by."""

    async def open(self) -> None:
        """Prepare for claims, as by taking a lease; may be called again after Disconnected."""

    async def close(self) -> None:
        """Hand back what is in flight, uncharged, and give up the lease; may be called again where that failed."""

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """Take up to `limit` tasks in order; with `wait`, wait up to some two seconds for the first one.

        Must not be cancelled: what has been claimed would not be known.
        """

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:
        """Tasks claimed by this worker that are not among those it `held`: the reply of their claim was lost."""

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Write results and dead letters and acknowledge, atomically, all in one call.

        Returns those refused because this worker does not own the task any more. May be called
        again with the same outcomes after Disconnected: nothing is written twice. Raises Unwritten.
        """

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand tasks back to the head of the queue, in order and without charging an attempt."""


class Observer:
    """Is told what happens, by the batch; a subclass overrides what it wants to hear.

    Called on the event loop: it must be quick. What it raises is logged and changes nothing.
    """

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        """Tasks were claimed."""

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes were written and acknowledged."""

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes were not written: the tasks have gone to another worker meanwhile."""

    def released(self, deliveries: Sequence[Delivery]) -> None:
        """Tasks were handed back to the queue."""

    def recovered(self, worker: str, count: int) -> None:
        """`count` tasks of the dead `worker` were returned to the queue."""

    def lease_lost(self, worker: str) -> None:
        """This worker, known as `worker` until now, was presumed dead; it goes on under a new name."""

    def paused(self) -> None:
        """The queue was found paused: nothing is claimed until it is resumed."""

    def resumed(self) -> None:
        """The queue is not paused any more."""

    def damaged(self, error: DamagedKey) -> None:
        """A key was found to hold another type than it should: what needs it waits. Repeated as long as it is so."""

    def disconnected(self, error: Exception, delay: float) -> None:
        """The queue cannot be reached; the next try is in `delay` seconds."""

    def reconnected(self, seconds: float) -> None:
        """The queue answers again, after so many seconds."""

    def blocked(self, seconds: float, stack: str) -> None:
        """The event loop has not turned for so many seconds; `stack` shows what holds it."""
