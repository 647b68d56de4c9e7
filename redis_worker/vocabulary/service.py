"""How a worker stands, for whoever asks from outside."""

from __future__ import annotations

from typing import Literal, NamedTuple

Condition = Literal["running", "waiting for Redis", "Redis is away", "stopping"]
"""`running` is connected and claiming; `waiting for Redis` is before the first connection, `Redis is away` after it
was lost; `stopping` is from the first word of a stop, or from the last claim, until the end."""


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
