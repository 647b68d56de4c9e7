"""The interfaces that the engine needs; the broker and the outer packages implement them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from redis_worker.vocabulary.errors import DamagedKey, RedisWorkerError, Unacceptable
from redis_worker.vocabulary.stage_status import Stages
from redis_worker.vocabulary.task import Delivery, Outcome

Parser: TypeAlias = Callable[[Any], list[Any]]
"""Converts the member `task` into the processor's arguments; raises ValueError if it is invalid."""

Processor: TypeAlias = Callable[[list[Any]], Any] | Callable[[list[Any]], Awaitable[Any]]
"""Does the work: arguments to a JSON value, `async` or plain."""


class Unwritten(Exception):
    """Raised by `settle`: some outcomes are not written, and stay in flight. All others are written."""

    def __init__(
        self, left: Sequence[tuple[DamagedKey | Unacceptable, Sequence[Outcome]]], refused: Sequence[Outcome]
    ) -> None:
        """`refused` is the return value of `settle`; `left` holds the outcomes that are not written, by error.

        After a DamagedKey they can be written once the key is mended; after Unacceptable, in smaller batches, or with
        less content.
        """
        super().__init__("some outcomes are not written")
        self.left = left
        self.refused = refused


class Queue(Protocol):
    """The source of tasks and the destination of outcomes. Raises Disconnected or Refused, no driver errors."""

    @property
    def cut_short(self) -> bool:
        """True if the last claim may have left tasks behind although it took fewer than asked for: they are large."""

    @property
    def worker(self) -> str:
        """The name of this worker."""

    async def open(self) -> None:
        """Prepare for claims, for example take a lease; may be called again after Disconnected."""

    async def close(self) -> None:
        """Return tasks in flight, uncharged, and give up the lease; may be called again after a failure."""

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        """Claim up to `limit` tasks in order; with `wait`, wait about two seconds for the first one.

        Must not be cancelled: the claimed tasks would be lost from sight.
        """

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:
        """Return tasks claimed by this worker that are not in `held`: the reply to their claim was lost."""

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Write results and dead letters and acknowledge, atomically, all in one call.

        Returns the outcomes refused because this worker no longer owns their tasks. May be called
        again with the same outcomes after Disconnected: nothing is written twice. Raises Unwritten.
        """

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Return tasks to the head of the queue, in order and without charging an attempt."""


Partition: TypeAlias = tuple[str, int]
"""A topic and the number of one of its partitions."""

Refusals: TypeAlias = Mapping[int, str]
"""Values that a database refuses: the index of each in its batch, and the database's reason."""


class PartitionsLost(RedisWorkerError):
    """Raised by `Sink.write`: a successor has taken some partitions, and nothing is written."""

    def __init__(self, partitions: Collection[Partition]) -> None:
        """`partitions` are those that another consumer owns now."""
        names = ", ".join(f"{topic}[{number}]" for topic, number in sorted(partitions))
        super().__init__(f"another consumer has taken {names}")
        self.partitions = partitions


@runtime_checkable
class Sink(Protocol):
    """The destination of what handlers return. Raises Disconnected or Refused, no driver errors.

    A value is a mapping (one row), a list of mappings (written together or not at all) or None (nothing to write).
    """

    batch_size: int
    """The number of values to collect for a write."""

    flush_after: float
    """The longest time in seconds that a value waits for others."""

    stores_offsets: bool
    """True if offsets are committed with the values: `take` and `write(offsets=…)` are used then."""

    async def open(self) -> None:
        """Connect, and check that values can be written; may be called again after Disconnected."""

    async def close(self) -> None:
        """Give up connections; may be called again."""

    async def take(self, group: str, owner: str, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Become the owner of partitions in the place of any other, and return the stored offsets to read next.

        A partition without a stored offset is not in the result.
        """

    async def write(
        self,
        values: Sequence[Any],
        *,
        offsets: Mapping[Partition, int] | None = None,
        refused: Callable[[Refusals], Awaitable[None]] | None = None,
    ) -> Refusals:
        """Write all values, in as few statements as possible, and `offsets` in the same transaction.

        Returns the values that the database refuses; all others are written. `refused` is awaited with them (if there
        are any) before the commit, so that dead letters exist before the offsets cover them; an exception from it
        rolls everything back. After Disconnected nothing or everything is written: call it again with the same values
        and offsets (without those of partitions lost since), and they are written once. Raises PartitionsLost.
        """
        ...


class Observer:
    """Base class of listeners, which receive events in batches; a subclass overrides the events it needs.

    Methods run on the event loop: they must be quick. An exception is logged and changes nothing.
    """

    def staged(self, stages: Stages) -> None:
        """Called before work begins, if the handler is a pipeline; `stages` returns the counts of its stages."""

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        """Called after tasks were claimed."""

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """Called after outcomes were written and acknowledged."""

    def refused(self, outcomes: Sequence[Outcome]) -> None:
        """Called when outcomes are not written: another worker owns the tasks now."""

    def released(self, deliveries: Sequence[Delivery]) -> None:
        """Called after tasks were returned to the queue."""

    def recovered(self, worker: str, count: int) -> None:
        """Called after `count` tasks of the dead `worker` were returned to the queue."""

    def lease_lost(self, worker: str) -> None:
        """Called when this worker was presumed dead under the name `worker`; it continues under a new name."""

    def paused(self) -> None:
        """Called when the queue is paused: nothing is claimed until it is resumed."""

    def resumed(self) -> None:
        """Called when the queue is resumed."""

    def damaged(self, error: DamagedKey) -> None:
        """Called repeatedly while a key has the wrong type: work that needs the key waits."""

    def disconnected(self, error: Exception, delay: float) -> None:
        """Called when the queue is unreachable; the next try is in `delay` seconds."""

    def reconnected(self, seconds: float) -> None:
        """Called when the queue answers again, after `seconds`."""

    def blocked(self, seconds: float, stack: str) -> None:
        """Called when the event loop was blocked for `seconds`; `stack` shows where."""

    def written(self, values: int, refused: int, seconds: float) -> None:
        """Called after a write to a sink took `seconds`: values written, and values that it refused (dead letters)."""

    def assigned(self, partitions: Collection[Partition]) -> None:
        """Called when a rebalance gave partitions to this worker."""

    def revoked(self, partitions: Collection[Partition], lost: bool) -> None:
        """Called after a rebalance took partitions away; `lost` if it was without notice: nothing could be drained."""

    def committed(self, partitions: Collection[Partition]) -> None:
        """Called after the offsets of partitions were committed."""
