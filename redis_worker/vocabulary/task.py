"""The stages of a task: Delivery (raw, claimed) -> Task (read) -> Outcome (to be settled)."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


class Receipt(Protocol):
    """The queue's side of a claim, shared by all tasks claimed under one lease."""

    @property
    def lost(self) -> bool:
        """True once other workers may own these tasks: running them would be wasted work."""


# Not frozen: a frozen dataclass takes several times as long to make, and these are made for each task.


@dataclass(slots=True, eq=False)
class Delivery:
    """One claimed task as the producer wrote it."""

    raw: bytes
    receipt: Receipt
    deaths: int = 0
    """The number of workers that died holding the task."""
    retries: int = 0
    """The number of retries so far."""
    plain: bool = False
    """True if the queue found no number of more than 18 digits in the task; those are read slowly."""
    done: bool = False
    """True if a message with the same id was completed before: it is acknowledged without being handled."""
    number: int = 0
    """The number by which the queue knows the task; unique for a worker."""
    progress: str | None = field(default=None, kw_only=True)
    """What its function has reported last, for people to read."""
    function: str | None = field(default=None, kw_only=True)
    """The name of the function that it calls, once it was read, if its queue has functions."""
    received: Any = field(default=None, kw_only=True)
    """The task as it was read, until its handler takes it."""

    @property
    def label(self) -> str | None:
        """The name of the task for people, if its queue gives it one; otherwise it is its id."""
        return None

    @property
    def attempt(self) -> int:
        """1 for the first delivery, plus 1 for each redelivery."""
        return 1 + self.deaths + self.retries


Task: TypeAlias = tuple[str, Any]
"""A task that was read: the text form of its id, which is the result's field in the output hash, and its member `task`.

Not a class: an object more for each task would take longer than the rest of its reading.
"""

RUNNING: ContextVar[Any] = ContextVar("redis_worker_task", default=None)
"""The task that the running code belongs to: a Delivery, or an object with its `delivery`, and perhaps its `id`."""


class Turn:
    """The task that a call runs for, of several that follow each other in one context."""

    __slots__ = ("delivery",)

    def __init__(self) -> None:
        self.delivery: Delivery | None = None


def running_task() -> tuple[Delivery, str | None] | None:
    """Return the task that the running code belongs to, with its id if that is known; None if it belongs to none."""
    found = RUNNING.get()
    delivery = found if isinstance(found, Delivery) else getattr(found, "delivery", None)
    return None if delivery is None else (delivery, getattr(found, "id", None))


@dataclass(slots=True, eq=False)
class Outcome:
    """The outcome of a delivery, as data: the engine decides it, the queue persists it."""

    delivery: Delivery
    id: str | None
    """The task's id; None if it has no usable one."""
    result: Any
    """The JSON to store under the id, or the value for a sink; None without one."""
    error: str | None = None
    """The text of an error result, or the reason for having none."""
    dead: bool = False
    """True if the task also becomes a dead letter, with `error` as the reason."""
    seconds: float = 0.0
    """The run time."""
    again: float | None = None
    """The delay of a retry, in seconds, for the reason in `error`: no result and no dead letter yet."""
    skipped: bool = False
    """True if a message with the same id was completed before."""
    exception: BaseException | None = None
    """The exception that failed the task; RaisedInProcess, with the traceback, if a child process raised it."""


def but_successes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the `outcomes` other than plain successes: most often none. The hot path."""
    return [outcome for outcome in outcomes if outcome.error is not None or outcome.skipped]
