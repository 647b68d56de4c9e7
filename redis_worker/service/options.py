"""How a pool works, beyond what it works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from redis_worker.vocabulary.checks import check_flag, check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError

Delivery = Literal["at-least-once", "at-most-once"]
ExecutionChoice = Literal["auto", "async", "inline", "thread", "process"]


_WHOLE = {"concurrency": 1, "max_deliveries": 1, "max_tasks": 1, "dead_limit": 1, "retries": 0}
# The ranges of the other times are the processor's concern.
_TIMES = {
    "lease": 2, "connect_timeout": 0, "shutdown_timeout": 0, "result_ttl": 1,
    "timeout": None, "retry_backoff": None, "retry_backoff_max": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool works, beyond what it works on.

    A time is a number of seconds, a timedelta or a text as "90s" or "24h"; it is kept in seconds.
    Raises ConfigurationError for a value of the wrong type, or out of range.
    """

    concurrency: int = 4
    """How many tasks run at once, at the most."""
    delivery: Delivery = "at-least-once"
    execution: ExecutionChoice = "auto"
    """Where the processor runs; "auto" leaves it to the processor's own declaration."""
    timeout: Duration | None = None
    """The time limit of one task; None leaves it to the processor's own declaration."""
    max_deliveries: int = 3
    """After so many workers have died holding a task, it is given up."""
    lease: Duration = 6.0
    """A worker not heard of for so long is presumed dead, and its tasks go to others."""
    connect_timeout: Duration = 10.0
    """How long to wait for a server at start; 0 is for ever."""
    shutdown_timeout: Duration = 30.0
    """How long running tasks may take to finish after a stop."""
    burst: bool = False
    """End when the queue is empty and nothing is running."""
    max_tasks: int | None = None
    """End after so many tasks."""
    retries: int | None = None
    """How often a task that failed is tried again; None leaves it to the processor's own declaration, as below."""
    retry_backoff: Duration | None = None
    """The first delay before that; each one after is twice as long, with jitter."""
    retry_backoff_max: Duration | None = None
    """The longest delay."""
    dead_limit: int = 10_000
    """The most dead letters kept; the oldest are dropped, and counted."""
    result_ttl: Duration | None = None
    """After so long, in whole seconds, a result expires (Redis 7.4, Valkey 9); None keeps it."""

    def __post_init__(self) -> None:
        if self.delivery not in get_args(Delivery):
            raise ConfigurationError(f"delivery must be at-least-once or at-most-once, got {self.delivery!r}")
        if self.execution not in get_args(ExecutionChoice):
            known = ", ".join(get_args(ExecutionChoice))
            raise ConfigurationError(f"execution must be one of {known}, got {self.execution!r}")
        for name, least in _WHOLE.items():
            self._keep(name, check_whole, least)
        for name, lowest in _TIMES.items():
            self._keep(name, check_seconds, lowest)
        self._keep("result_ttl", check_whole, 1)
        check_flag("burst", self.burst)

    def _keep(self, name: str, check: Callable[..., Any], least: float | None) -> None:
        """Keep what `check` makes of a value; None stands where it is the default."""
        value = getattr(self, name)
        if value is not None or self.__dataclass_fields__[name].default is not None:
            object.__setattr__(self, name, check(name, value, least))


def pool_options(concurrency: int, options: dict[str, Any]) -> PoolOptions:
    """The options of a pool, from keyword arguments. Raises ConfigurationError."""
    try:
        return PoolOptions(concurrency=concurrency, **options)
    except TypeError:
        known = [field.name for field in fields(PoolOptions)]
        unknown = ", ".join(repr(name) for name in options if name not in known)
        if not unknown:
            raise
        raise ConfigurationError(f"unknown option {unknown}; a pool has {', '.join(known)}") from None
