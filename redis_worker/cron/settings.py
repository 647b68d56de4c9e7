"""The settings of a cron job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import Declaration, declaration_of

Overlap = Literal["skip", "queue", "allow"]
"""The handling of an instant while an earlier run is in progress, in any process of the fleet."""

ATTEMPT_OPTIONS = ("timeout", "retries", "retry_backoff", "retry_backoff_max")
"""Options that the function of a job may declare, and its settings override."""

Catchup = Literal["skip", "last", "all"]
"""The instants to catch up after no process could fire them."""


@dataclass(frozen=True, slots=True)
class Push:
    """A task to push, instead of a function to run."""

    input: str
    """The input list."""
    task: Any
    """Any JSON value."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The settings of a cron job, with either `job` or `push`. All times are in seconds."""

    name: str
    app: str
    """The supervisor's name. Jobs of one name in two applications are two jobs."""
    schedule: str
    """A cron expression of five fields, or six with seconds first."""
    timezone: str = "UTC"
    """An IANA name."""
    job: str | None = None
    """`module:function`. A function with a positional parameter receives the instant of the run."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the call."""
    lifespan: str | None = None
    """`module:function` of what the function needs, see Lifespan."""
    push: Push | None = None
    timeout: float | None = None
    """The time limit of one attempt. None, here and in the three retry options, uses the function's declaration."""
    overlap: Overlap = "skip"
    catchup: Catchup = "skip"
    catchup_window: float = 86_400.0
    """Instants missed longer ago are not caught up."""
    retries: int | None = None
    retry_backoff: float | None = None
    retry_backoff_max: float | None = None


def declared_by(settings: JobSettings, function: Callable[..., Any] | None) -> Declaration:
    """Return the declaration of `function`, overridden by the settings.

    Raises ConfigurationError if the two contradict each other.
    """
    own = {key: getattr(settings, key) for key in ATTEMPT_OPTIONS}
    declared = declaration_of(function or _push, "the cron job", name=repr(settings.name), **own)
    if declared.execution == "process":
        raise ConfigurationError(
            f"the cron job {settings.name!r}: its function is declared to run in a process, but a cron job runs on the "
            "event loop or in a thread; push a task to a pool with this processor instead"
        )
    return declared


def _push() -> None:
    """Stand in for the function of a job that pushes."""


def check(settings: JobSettings) -> None:
    """Raise ConfigurationError if two settings contradict each other, or one is unknown."""
    name = f"the cron job {settings.name!r}"
    if (settings.job is None) == (settings.push is None):
        raise ConfigurationError(f"{name} needs either a function to run or a task to push")
    for option, value, known in (
        ("overlap", settings.overlap, get_args(Overlap)),
        ("catchup", settings.catchup, get_args(Catchup)),
    ):
        if value not in known:
            raise ConfigurationError(f"{name}: unknown {option} {value!r}, use one of {', '.join(known)}")
    if settings.catchup_window < 0:
        raise ConfigurationError(f"{name}: the catch-up window must not be negative")
