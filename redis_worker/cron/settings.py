"""What is said of a cron job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Overlap = Literal["skip", "queue", "allow"]
"""What becomes of an instant while the run of an earlier one goes on, on whatever machine of the fleet."""

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
    """The time limit of one try."""
    overlap: Overlap = "skip"
    catchup: Catchup = "skip"
    catchup_window: float = 86_400.0
    """What was missed longer ago is not made up for."""
    retries: int = 0
    retry_backoff: float = 1.0
    retry_backoff_max: float = 60.0
