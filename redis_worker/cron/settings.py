"""What is said of a cron job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import Declaration, declaration_of

Overlap = Literal["skip", "queue", "allow"]
"""What becomes of an instant while the run of an earlier one goes on, on whatever machine of the fleet."""

OF_A_TRY = ("timeout", "retries", "retry_backoff", "retry_backoff_max")
"""What the function of a job may declare, and its settings say in its place."""

Catchup = Literal["skip", "last", "all"]
"""Which of the instants that passed while nobody was there are made up for."""


@dataclass(frozen=True, slots=True)
class Push:
    """A task to be pushed, in place of code to be run."""

    input: str
    """The list."""
    task: Any
    """Any JSON value."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """A cron job. All times are in seconds. It has either `job` or `push`."""

    name: str
    app: str
    """What it belongs to: the supervisor's name. Jobs of one name in two applications are two jobs."""
    schedule: str
    """Five fields, or six, of which the first is the second."""
    timezone: str = "UTC"
    """By its IANA name."""
    job: str | None = None
    """`module:function`. A function that takes an argument is given the instant it is run for."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Passed on to it by name."""
    push: Push | None = None
    timeout: float | None = None
    """The time limit of one try; None leaves it, as the three below, to the function's own declaration."""
    overlap: Overlap = "skip"
    catchup: Catchup = "skip"
    catchup_window: float = 86_400.0
    """What was missed longer ago is not made up for."""
    retries: int | None = None
    retry_backoff: float | None = None
    retry_backoff_max: float | None = None


def declared_by(settings: JobSettings, function: Callable[..., Any] | None) -> Declaration:
    """Return what `function` declares of itself, with what the settings say in its place.

    Raises ConfigurationError where the two do not fit together.
    """
    own = {key: getattr(settings, key) for key in OF_A_TRY}
    declared = declaration_of(function or _push, "the cron job", name=repr(settings.name), **own)
    if declared.execution == "process":
        raise ConfigurationError(
            f"the cron job {settings.name!r}: its function is declared to run in a process, and a cron job runs on the "
            "event loop or in a thread; push a task to a pool with this processor instead"
        )
    return declared


def _push() -> None:
    """A task is pushed."""
