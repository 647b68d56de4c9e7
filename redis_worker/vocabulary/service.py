"""How a worker stands, for whoever asks from outside."""

from __future__ import annotations

from typing import Literal, NamedTuple

Condition = Literal["running", "waiting for Redis", "Redis is away", "stopping"]
"""`running` is connected and claiming; `waiting for Redis` is before the first connection, `Redis is away` after it
was lost; `stopping` is from the first word of a stop, or from the last claim, until the end."""

PartState = Literal[
    "starting", "running", "waiting for Redis", "Redis is away", "restarting", "failed", "stopping", "ended"
]
"""A Condition, or: `starting` is before its first run; `restarting` waits for its next one after a failure, `failed`
had too many of them, `ended` has ended by itself and is not to run again."""

PartKind = Literal["pool", "topics", "daemon", "cron job"]

READY = ("running", "ended")
"""The states in which a part leaves nothing to be desired."""


class Consuming(NamedTuple):
    """A queue that tasks are claimed from just now."""

    queue: str
    """The list."""
    topic: str
    """The topic whose list it is; the list itself where there are no topics."""
    processor: str
    """The name of the processor or handler."""
    in_flight: int
    """How many tasks are claimed here and not settled."""
    part: str = ""
    """The part of a supervisor that claims them; empty where there is none."""


class PartStatus(NamedTuple):
    """How one part of a supervisor stands."""

    name: str
    kind: PartKind
    state: PartState
    restarts: int = 0
    """How often it has been started again, all its processes together."""
    error: str | None = None
    """What its last failure was, in one line; None where there was none since it was started or reloaded."""
    processes: int = 0
    """How many processes of its own it runs in; 0 where it runs in the supervisor's event loop."""
