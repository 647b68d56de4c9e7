"""A task on its way: Delivery (raw, claimed) -> Task (read) -> Outcome (what is to be settled)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Receipt(Protocol):
    """The queue's side of a claim, shared by all tasks claimed under one lease."""

    @property
    def lost(self) -> bool:
        """True once other workers may own these tasks: running them would be work for nothing."""


# Not frozen: a frozen dataclass takes several times as long to make, and these are made for each task.


@dataclass(slots=True, eq=False)
class Delivery:
    """One claimed task as the producer wrote it."""

    raw: bytes
    receipt: Receipt
    deaths: int = 0
    """How many workers have died holding the task."""
    retries: int = 0
    """How many times the task has been tried again."""
    plain: bool = False
    """True when the queue has seen that the task holds no number of more than 18 digits, which are read slowly."""
    done: bool = False
    """True when a message with the same id was completed before: it is to be acknowledged, and not handled."""

    @property
    def attempt(self) -> int:
        """1 for the first delivery, one more for each one after."""
        return 1 + self.deaths + self.retries


@dataclass(slots=True, eq=False)
class Task:
    """A task that could be read."""

    id: str
    """The text form of the id, which is the result's field in the output hash."""
    payload: Any
    """The member `task`: any JSON value."""


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of a delivery. It is data: the engine decides it, the queue persists it."""

    delivery: Delivery
    id: str | None
    """The task's id; None when it has none that could be answered."""
    result: bytes | None
    """The JSON to store under the id; None when there is nothing to answer."""
    error: str | None = None
    """The text of an error result, or why there is none."""
    dead: bool = False
    """True when the task also goes to the dead letters, with `error` as the reason."""
    seconds: float = 0.0
    """How long the task ran."""
    again: float | None = None
    """Try the task again after so many seconds: it is neither answered nor dead yet, and `error` says why."""
    skipped: bool = False
    """True when there was nothing to do: a message with the same id was completed before."""
    exception: BaseException | None = None
    """The exception that made the task fail; RaisedInProcess, with the traceback, where a process raised it."""


def but_successes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those of `outcomes` that are no plain success: most often none. The hot path."""
    return [outcome for outcome in outcomes if outcome.error is not None or outcome.skipped]
