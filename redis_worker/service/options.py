"""The options of pools and topic workers, each with its default, its range and its help text.

The command line and the TOML schema are derived from these classes.
"""
# ruff: noqa: RUF009 - `option` is dataclasses.field with checks

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

from redis_worker.vocabulary.checks import check_flag, check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.priorities import Priorities, PrioritiesLike, priorities_of
from redis_worker.vocabulary.rate import Rate

Delivery = Literal["at-least-once", "at-most-once"]
ExecutionChoice = Literal["auto", "async", "inline", "thread", "process"]


def check_whole_seconds(name: str, value: Duration, least: int) -> int:
    """Return the seconds of the setting `name`. Raises ConfigurationError where they are no whole number."""
    return check_whole(name, check_seconds(name, value, least), least)


def check_rate(name: str, value: Any, _: None) -> Any:
    """Return the rate `value`. Raises ConfigurationError."""
    Rate.of(name, value)
    return value


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        wanted = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
        raise ConfigurationError(f"{name} must be {wanted}, got {value!r}")
    return value


def check_name(name: str, value: Any, _: None) -> str:
    """Return the name of a key. Raises ConfigurationError."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{name} must be the name of a key, got {value!r}")
    return value


def check_priorities(_: str, value: PrioritiesLike, __: None) -> Priorities:
    """Return the priorities of a setting. Raises ConfigurationError."""
    return priorities_of(value)


def option(
    default: Any,
    check: Callable[..., Any],
    help: str,
    *,
    metavar: str | None = None,
    least: float | None = None,
    above: float | None = None,
    known: tuple[str, ...] | None = None,
) -> Any:
    """Return a field with a value of at least `least`, above `above`, or one of `known`.

    A value is not compared with `above` here: the processor's declaration does it, in a sentence of its own.
    """
    limits = () if check is check_flag else (known or least,)
    return field(
        default=default,
        metadata={
            "check": lambda name, value: check(name, value, *limits),
            "help": help,
            "metavar": metavar,
            "least": least,
            "above": above,
            "known": known,
        },
    )


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Options that pools and topic workers have in common.

    A time is a number of seconds, a timedelta or a text as "90s" or "24h"; it is kept in seconds.
    Raises ConfigurationError for a value of the wrong type, or out of range.
    """

    concurrency: int = option(4, check_whole, "Tasks at once.", least=1)
    max_deliveries: int = option(
        3, check_whole, "Give a task up after N workers have died holding it.", least=1, metavar="N"
    )
    lease: Duration = option(
        6.0, check_seconds, "A worker not heard of for so long is presumed dead.", least=2, metavar="S"
    )
    connect_timeout: Duration = option(
        10.0, check_seconds, "How long to wait for Redis at start; 0: for ever.", least=0, metavar="S"
    )
    shutdown_timeout: Duration = option(
        30.0, check_seconds, "How long running tasks may take after a stop.", least=0, metavar="S"
    )
    dead_limit: int = option(
        10_000, check_whole, "Keep N dead letters; the oldest are dropped, and counted.", least=1, metavar="N"
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is not None or option.default is not None:
                object.__setattr__(self, option.name, option.metadata["check"](option.name, value))


@dataclass(frozen=True, slots=True)
class PoolOptions(WorkerOptions):
    """The options of a pool, see also WorkerOptions.

    None in `timeout`, `retries`, `retry_backoff` and `retry_backoff_max`, and "auto" in `execution`, stand for the
    processor's own declaration. Raises ConfigurationError.
    """

    delivery: Delivery = option(
        "at-least-once",
        check_choice,
        "What to prefer when a worker dies: doing a task again, or losing it.",
        known=get_args(Delivery),
    )
    execution: ExecutionChoice = option(
        "auto", check_choice, "Where the processor runs; auto is what it declares.", known=get_args(ExecutionChoice)
    )
    timeout: Duration | None = option(None, check_seconds, "Time limit of one task, in seconds.", above=0, metavar="S")
    rate: str | None = option(
        None, check_rate, "Start at most N tasks in any period T, all workers together: 100/m, 5/s.", metavar="N/T"
    )
    burst: bool = option(False, check_flag, "End when the queue is empty and nothing is running.")
    max_tasks: int | None = option(None, check_whole, "End after N tasks, each worker process.", least=1, metavar="N")
    retries: int | None = option(None, check_whole, "Try a task that failed again, N times.", least=0, metavar="N")
    retry_backoff: Duration | None = option(
        None,
        check_seconds,
        "The first delay before that, then it doubles; 1 s, if the processor does not say.",
        above=0,
        metavar="S",
    )
    retry_backoff_max: Duration | None = option(
        None, check_seconds, "The longest delay; 60 s, if the processor does not say.", above=0, metavar="S"
    )
    result_ttl: Duration | None = option(
        None, check_whole_seconds, "Results expire after S seconds (Redis 7.4, Valkey 9).", least=1, metavar="S"
    )
    """None keeps results for ever."""
    forward: str | None = option(
        None,
        check_name,
        "Push each result of a success to the list KEY, as a task with the same id, instead of storing it.",
        metavar="KEY",
    )
    priorities: PrioritiesLike | None = option(
        None,
        check_priorities,
        "Claim by priority, as high,default,low; or by weight, as high=6,default=3,low=1.",
        metavar="NAMES",
    )
    """A list for each priority; `default` is that of the queue itself."""


@dataclass(frozen=True, slots=True)
class TopicWorkerOptions(WorkerOptions):
    """The options of a topic worker, see WorkerOptions. Raises ConfigurationError."""

    concurrency: int = option(100, check_whole, "Messages at once, of all topics together.", least=1)


UNDECLARED: Final = (
    *("delivery", "execution", "timeout", "retries", "retry_backoff", "retry_backoff_max", "rate", "result_ttl"),
    *("priorities", "forward"),
)
"""The options of a pool that a worker on functions does not have: its functions, or their queue, declare them.

In place of `forward`, a function waits for another one.
"""

POOL_DEFAULTS: Final = PoolOptions()
TOPIC_WORKER_DEFAULTS: Final = TopicWorkerOptions()


def pool_options(concurrency: int, options: dict[str, Any]) -> PoolOptions:
    """Return the options of a pool, from keyword arguments. Raises ConfigurationError."""
    try:
        return PoolOptions(concurrency=concurrency, **options)
    except TypeError:
        known = [option.name for option in fields(PoolOptions)]
        unknown = ", ".join(repr(name) for name in options if name not in known)
        if not unknown:
            raise
        raise ConfigurationError(f"unknown option {unknown}; a pool has {', '.join(known)}") from None
