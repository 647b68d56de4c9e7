"""The consumer: one queue at work. It composes the engine for a queue of any kind, and knows no Redis."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis_worker.engine.batches import BatchHandler, BatchRunner
from redis_worker.engine.counters import Counters, Counting
from redis_worker.engine.execution import Execution
from redis_worker.engine.executions import execution_of
from redis_worker.engine.handler import Handler
from redis_worker.engine.reading import Read
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.runner import InlineRunner, Runner, TaskRunner
from redis_worker.engine.running import RunningTask
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.engine.worker import Worker
from redis_worker.ports import Observer, Queue
from redis_worker.service.routing import Batching
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.processor import Declaration
from redis_worker.vocabulary.service import Condition, Consuming

Role: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Runs beside a worker until it is cancelled."""
Upkeep: TypeAlias = Callable[[Worker], Sequence[Role]]
"""The roles of one worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The function that a consumer calls with each task, and how it calls it."""

    read: Read
    call: Callable[[Any], Any]
    declaration: Declaration
    concurrency: int
    max_deliveries: int
    may_retry: bool = True
    """False where no task is ever tried again, not even one that raises Retry."""
    bury: bool = False
    """Write a dead letter for each failure that is not tried again."""
    batching: Batching | None = None
    """Call the function with many messages at once."""
    slots: Slots | None = None
    """Slots shared with other consumers: each call takes one of them as well."""

    def runner(self, execution: Execution | None) -> Callable[[Settler], Runner]:
        """Return what builds the runner for a settler; `execution` is None for inline calls."""
        declared, batching = self.declaration, self.batching
        policy = RetryPolicy(declared.retries, declared.retry_backoff, declared.retry_backoff_max, bury=self.bury)
        if not self.may_retry:
            policy = RetryPolicy(granted=0)
        if batching is not None and execution is not None:
            batches = BatchHandler(self.read, execution, declared.timeout, policy)
            size, within = batching.size, batching.within
            return lambda settler: BatchRunner(batches, settler, self.concurrency, self.slots, size=size, within=within)
        handler = Handler(self.read, self.call, execution, declared.timeout, policy)
        if execution is None:
            return lambda settler: InlineRunner(handler, settler, self.concurrency)
        return lambda settler: TaskRunner(handler, settler, self.concurrency, self.slots)


class Consumer:
    """One queue at work, from the claim to the settled outcome."""

    def __init__(
        self,
        source: str,
        queue: Queue,
        work: Work,
        observer: Observer,
        counting: Counting,
        *,
        topic: str | None = None,
        upkeep: Upkeep = lambda _: (),
        reconnect: Reconnect | None = None,
        shutdown_timeout: float,
        burst: bool = False,
        max_tasks: int | None = None,
    ) -> None:
        """`source` names the queue, `upkeep` gives the roles that run beside the worker.

        Consumers of one server may share a `reconnect`; see Worker for the other options. Raises ConfigurationError
        where the function cannot be called as it declares.
        """
        self.source = source
        self.topic = source if topic is None else topic
        self.work = work
        self._queue = queue
        self._counting = counting
        declared = work.declaration
        execution = execution_of(work.call, declared.execution, declared.timeout, work.concurrency, work.max_deliveries)
        self._worker = Worker(
            queue,
            work.runner(execution),
            execution,
            observer,
            shutdown_timeout=shutdown_timeout,
            burst=burst,
            max_tasks=max_tasks,
            reconnect=reconnect,
        )
        self._upkeep = upkeep(self._worker)

    @property
    def counters(self) -> Counters:
        """Counts of the tasks of this queue."""
        return self._counting.counters

    @property
    def running(self) -> int:
        """Return how many tasks (or batches) run."""
        return self._worker.running

    def running_tasks(self) -> list[RunningTask]:
        """Return the tasks that run, oldest first; call it on the event loop."""
        return self._worker.running_tasks()

    @property
    def consuming(self) -> Consuming:
        """The queue, its function, and how many tasks are in flight."""
        return Consuming(self.source, self.topic, self.work.declaration.name, self._worker.in_flight)

    @property
    def condition(self) -> Condition:
        """The state of a consumer that runs."""
        if not self._worker.claiming:
            return "stopping"
        return "Redis is away" if self._worker.away else "running"

    async def open(self) -> None:
        """Prepare the queue. Raises Disconnected or Refused."""
        await self._queue.open()

    async def run(self) -> None:
        """Work until stopped or done; `open` comes before, `close` after. Raises Refused."""
        await self._worker.run(self._upkeep)

    async def close(self) -> None:
        """Hand back what is in flight; may be called again where that was refused. Raises nothing."""
        try:
            await self._queue.close()
        except (Disconnected, Refused):
            pass  # the lease ends by itself, and other workers recover the tasks

    def stop(self) -> None:
        """Stop gracefully."""
        self._worker.stop()

    def cancel(self) -> None:
        """Stop at once; unfinished tasks are handed back."""
        self._worker.cancel()
