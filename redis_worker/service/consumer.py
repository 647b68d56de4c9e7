"""The consumer: one queue at work. It composes the engine for a queue of any kind, and knows no Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from redis_worker.engine.batches import BatchHandler, BatchRunner
from redis_worker.engine.counters import Counters, Counting
from redis_worker.engine.execution import Coroutines, Encode, Execution, Inline, Threads, unencoded
from redis_worker.engine.gated_runner import Gate, GatedRunner
from redis_worker.engine.handler import Handler
from redis_worker.engine.keeping_runner import KeepingRunner
from redis_worker.engine.middleware import Middlewares, Surrounded, read_call
from redis_worker.engine.process_runner import ProcessRunner
from redis_worker.engine.processes import Processes
from redis_worker.engine.reading import Read
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.runner import InlineRunner, Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.engine.starts import NotedInProcesses
from redis_worker.engine.task_runner import TaskRunner
from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.engine.thread_runner import ThreadRunner
from redis_worker.engine.worker import Closable, Role, Worker
from redis_worker.ports import Observer, Queue
from redis_worker.service.routing import Batching
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.payload import success
from redis_worker.vocabulary.processor import Declaration
from redis_worker.vocabulary.service import Condition, Consuming

Upkeep: TypeAlias = Callable[[Worker], Sequence[Role]]
"""Returns the roles that run beside a worker."""


class Working(Protocol):
    """The work of a consumer."""

    @property
    def declaration(self) -> Declaration:
        """The name for people, and how tasks are run."""

    @property
    def concurrency(self) -> int:
        """How many calls run at once."""

    def execution(self) -> Closable | None:
        """Return the place of the calls, closed at the end; None if there is nothing to close."""

    def runner(self, execution: Any) -> Callable[[Settler], Runner]:
        """Return the function that builds the runner for a settler; `execution` is what `execution()` returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One function that a consumer calls with each task, and how it calls it."""

    read: Read
    call: Callable[[Any], Any]
    declaration: Declaration
    concurrency: int
    max_deliveries: int
    may_retry: bool = True
    """False if no task is retried, not even one that raises Retry."""
    bury: bool = False
    """Write a dead letter for each final failure."""
    batching: Batching | None = None
    """Call the function with many messages at once."""
    slots: Slots | None = None
    """Slots shared with other consumers: each call takes one of them as well."""
    encode: Encode = success
    """Makes the result of the function's value, or of each of its values."""
    queue: str = ""
    """The list, as middleware sees it."""
    middleware: Middlewares | None = None
    """The middleware around each call; not of a batch."""
    gate: Gate | None = None
    """Lets tasks start under limits; not batches. `call` then is Noted."""

    @property
    def _has_processes(self) -> bool:
        """True if the runner itself has processes, each with several tasks in hand."""
        return self.declaration.execution == "process" and self.batching is None and self.slots is None

    def execution(self) -> Execution | None:
        """Return the execution that is declared; None if the runner itself calls the function.

        Raises ConfigurationError if it is impossible.
        """
        if self.middleware:
            place = self._place(unencoded)
            if self.gate is not None and isinstance(place, Processes):
                place = NotedInProcesses(place)
            return Surrounded(place, self.middleware, self.encode)
        if self.gate is not None:
            place = self._place(self.encode)
            return NotedInProcesses(place) if isinstance(place, Processes) else place
        match self.declaration.execution:
            case "inline":
                return None
            case "async" | "thread" if self.batching is None:
                return None  # the runner awaits the function, or has threads of its own
            case "process" if self._has_processes:
                return None
            case _:
                return self._place(self.encode if self.batching is None else unencoded)

    def _place(self, encode: Encode) -> Execution:
        timeout = self.declaration.timeout
        match self.declaration.execution:
            case "inline":
                return Inline(self.call, encode)
            case "async":
                return Coroutines(self.call, timeout, encode)
            case "thread":
                return Threads(self.call, timeout, ThreadPool(self.concurrency, "redis-worker"), encode)
            case "process":
                return Processes(self.call, timeout, self.max_deliveries, encode)

    def runner(self, execution: Execution | None) -> Callable[[Settler], Runner]:
        """Return the function that builds the runner for a settler; `execution` is what `execution()` returned."""
        declared, batching = self.declaration, self.batching
        policy = RetryPolicy(declared.retries, declared.retry_backoff, declared.retry_backoff_max, bury=self.bury)
        if not self.may_retry:
            policy = RetryPolicy(granted=0)
        if batching is not None and execution is not None:
            batches = BatchHandler(self.read, execution, declared.timeout, policy, self.encode)
            size, within = batching.size, batching.within
            return lambda settler: BatchRunner(batches, settler, self.concurrency, self.slots, size=size, within=within)
        read = read_call(self.read, self.queue, declared.name) if self.middleware else self.read
        handler = Handler(read, self.call, execution, declared.timeout, policy, self.encode)
        if (gate := self.gate) is not None:
            return lambda settler: GatedRunner(gate, handler, settler, self.concurrency, self.slots)
        if self.middleware:
            return lambda settler: KeepingRunner(handler, settler, self.concurrency, self.slots)
        if declared.execution == "thread":
            return lambda settler: ThreadRunner(handler, settler, self.concurrency, self.slots)
        if self._has_processes:
            call, tries, encode = self.call, self.max_deliveries, self.encode
            return lambda settler: ProcessRunner(handler, settler, self.concurrency, call, tries, encode)
        if declared.execution == "inline":
            return lambda settler: InlineRunner(handler, settler, self.concurrency)
        return lambda settler: TaskRunner(handler, settler, self.concurrency, self.slots)


class Consumer(Worker):
    """A worker on one queue, from the claim to the settled outcome."""

    def __init__(
        self,
        source: str,
        queue: Queue,
        work: Working,
        observer: Observer,
        counting: Counting,
        *,
        topic: str | None = None,
        upkeep: Upkeep = lambda _: (),
        reconnect: Reconnect | None = None,
        shutdown_timeout: float,
        burst: bool = False,
        max_tasks: int | None = None,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        """`source` names the queue; `ring` ends a claim that waits. See Worker for the other options.

        Raises ConfigurationError if the function cannot be called as it declares.
        """
        self.source = source
        self.topic = source if topic is None else topic
        self.work = work
        self._queue = queue
        self._counting = counting
        self._ring = ring
        if work.declaration.stages is not None:
            observer.staged(work.declaration.stages)
        execution = work.execution()
        super().__init__(
            queue,
            work.runner(execution),
            execution,
            observer,
            shutdown_timeout=shutdown_timeout,
            burst=burst,
            max_tasks=max_tasks,
            reconnect=reconnect,
            upkeep=upkeep,
        )

    @property
    def counters(self) -> Counters:
        """Counts of the tasks of this queue."""
        return self._counting.counters

    @property
    def consuming(self) -> Consuming:
        """The queue, its function, and the number of tasks in flight."""
        return Consuming(self.source, self.topic, self.work.declaration.name, self.in_flight)

    @property
    def condition(self) -> Condition:
        """The condition of a running consumer."""
        if not self.claiming:
            return "stopping"
        return "Redis is away" if self.away else "running"

    def stop(self) -> None:
        """Stop gracefully."""
        super().stop()
        self._ring()

    async def open(self) -> None:
        """Prepare the queue, before `run`. Raises Disconnected or Refused."""
        await self._queue.open()

    async def close(self) -> None:
        """Release the tasks in flight, after `run`; may be called again if that was refused. Raises nothing."""
        try:
            await self._queue.close()
        except (Disconnected, Refused):
            pass  # the lease ends by itself, and other workers recover the tasks
