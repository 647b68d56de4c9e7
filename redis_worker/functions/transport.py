"""The way of tasks to their workers, and of results back."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from redis_worker.broker.client.steps import Step
from redis_worker.broker.client.task_client import TaskClient
from redis_worker.broker.operator.cancellation import Cancellation
from redis_worker.functions.inputs import NONCE
from redis_worker.functions.progress import Progress, read_progress
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.priorities import DEFAULT

P = ParamSpec("P")
T = TypeVar("T")

# Most tasks in one call.
_BATCH = 500


class Unique(NamedTuple):
    """The way in which a task is unique: by its id, and perhaps by its call."""

    digest: str = ""
    """A digest of the call; empty if only the id is unique."""
    ms: int = 0
    """The time for which the call is unique, in ms; 0: until it is answered."""


class Submission(NamedTuple):
    """A task on its way."""

    id: str
    payload: bytes
    delay: Duration | None = None
    at: datetime | None = None
    unique: Unique | None = None
    priority: str = DEFAULT
    after: tuple[str, ...] = ()
    """The ids of the tasks that it waits for."""
    runs: bool = False
    """True if it runs although one of them has failed."""
    order: str = ""
    """The digest of the key whose tasks run one after the other; empty without one."""

    @property
    def is_step(self) -> bool:
        """True if it may have to wait for other tasks."""
        return bool(self.after or self.order)


class Transport(Protocol):
    """The way of tasks to their workers, and of results back."""

    async def send(self, submissions: Sequence[Submission]) -> list[str]:
        """Submit tasks in their order. Returns their ids, or those of the tasks that were there already.

        Raises Disconnected and Refused.
        """
        ...

    async def result(self, id: str, timeout: Duration | None) -> Any:
        """Return the JSON value of a result. Raises TaskError, TimeoutError, Disconnected and Refused."""

    async def forget(self, id: str) -> bool:
        """Delete a result. Return False if there was none."""

    async def cancel(self, id: str) -> bool:
        """Cancel a task. Return False if it is answered, or is not found."""

    async def progress(self, id: str) -> Progress | None:
        """Return the last report of a task; None without one."""

    async def close(self) -> None:
        """Close the connections."""


class Linked(Protocol):
    """A queue, as its handles see it."""

    @property
    def name(self) -> str:
        """The list of tasks."""

    @property
    def transport(self) -> Transport:
        """The way of tasks and results."""

    def run_sync(self, call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call in a background thread, and return its result."""
        ...


class RedisTransport:
    """The way through Redis."""

    def __init__(self, client: TaskClient, cancellation: Cancellation, error_ttl: int) -> None:
        """`error_ttl` is the time, in seconds, until the answer of a cancelled task expires; 0 keeps it."""
        self._client = client
        self._cancellation = cancellation
        self._error_ttl = error_ttl

    async def send(self, submissions: Sequence[Submission]) -> list[str]:
        """Submit runs of tasks of one priority that are due at the same time together, hundreds in a call."""
        ids: list[str] = []
        batch: list[Submission] = []
        for submission in submissions:
            if batch and (_kind(submission) != _kind(batch[0]) or len(batch) == _BATCH):
                ids += await self._push(batch)
                batch = []
            batch.append(submission)
        return ids + await self._push(batch) if batch else ids

    async def _push(self, batch: Sequence[Submission]) -> list[str]:
        delay, at, priority = batch[0].delay, batch[0].at, batch[0].priority
        if batch[0].is_step:
            steps = [Step(each.id, each.payload, each.after, each.runs, each.unique, each.order) for each in batch]
            return await self._client.push_steps(steps, NONCE, self._error_ttl, priority)
        if batch[0].unique is not None:
            items = [(each.id, *(each.unique or Unique()), each.payload) for each in batch]
            return await self._client.push_unique(items, delay=delay, at=at, priority=priority)
        payloads = [submission.payload for submission in batch]
        await self._client.push_raw(payloads, delay=delay, at=at, priority=priority)
        return [submission.id for submission in batch]

    async def result(self, id: str, timeout: Duration | None) -> Any:
        """See Transport."""
        return await self._client.result(id, timeout)

    async def forget(self, id: str) -> bool:
        """See Transport."""
        return await self._client.delete([id]) > 0

    async def progress(self, id: str) -> Progress | None:
        """See Transport."""
        return read_progress(await self._client.progress(id))

    async def cancel(self, id: str) -> bool:
        """See Transport."""
        return await self._cancellation.cancel(id, self._error_ttl)

    async def close(self) -> None:
        """See Transport."""
        await self._cancellation.close()
        await self._client.close()


def _kind(submission: Submission) -> tuple[object, ...]:
    if submission.is_step:  # steps are parked together, unique or not
        return "step", submission.priority
    return submission.delay, submission.at, submission.unique is not None, submission.priority
