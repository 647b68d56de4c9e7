"""The options of a Kafka worker, each with its default, its range and its help text; see options."""
# ruff: noqa: RUF009 - `option` is dataclasses.field with checks

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from redis_worker.service.options import ExecutionChoice, check_choice, option
from redis_worker.vocabulary.checks import check_flag, check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from redis_worker.kafka.settings import KafkaSettings

Order = Literal["none", "partition", "key"]
Start = Literal["earliest", "latest"]
Assignment = Literal["sticky", "round-robin", "range"]


def _check_text(name: str, value: Any, _: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a text that is not empty, got {value!r}")
    return value


def _check_order(name: str, value: Any, known: tuple[str, ...]) -> Any:
    if isinstance(value, bool):
        return "partition" if value else "none"
    return check_choice(name, value, known)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """The options of a Kafka worker. A time is a Duration, kept in seconds.

    None in `timeout`, `retry_backoff` and `retry_backoff_max`, and "auto" in `execution`, stand for the handler's own
    declaration. Raises ConfigurationError for a value of the wrong type, or out of range.
    """

    concurrency: int = option(4, check_whole, "Messages (or batches) at once.", least=1)
    execution: ExecutionChoice = option(
        "auto", check_choice, "Where the handler runs; auto is what it declares.", known=get_args(ExecutionChoice)
    )
    timeout: Duration | None = option(None, check_seconds, "Time limit of one call, in seconds.", above=0, metavar="S")
    retries: int | None = option(
        None, check_whole, "Try a message that failed again, N times; 3, if the handler does not say.", least=0,
        metavar="N",
    )  # fmt: skip
    retry_backoff: Duration | None = option(
        None, check_seconds, "The first delay before that, then it doubles; 1 s, if the handler does not say.", above=0,
        metavar="S",
    )  # fmt: skip
    retry_backoff_max: Duration | None = option(
        None, check_seconds, "The longest delay; 60 s, if the handler does not say.", above=0, metavar="S"
    )
    ordered: Order | bool = option(
        "none", _check_order, "Which messages are handled one after the other.", known=get_args(Order)
    )
    """True is "partition"."""
    batch: bool = option(False, check_flag, "Call the handler with lists of messages.")
    size: int = option(100, check_whole, "The most messages in such a list.", least=1, metavar="N")
    within: Duration = option(0.5, check_seconds, "How long such a list waits for more.", least=0, metavar="S")
    max_deliveries: int = option(
        3, check_whole, "Give a message up after N workers have died holding it alone.", least=1, metavar="N"
    )
    dead_letters: str | None = option(
        None, _check_text, "The topic of dead letters, GROUP.dead if not given; none: they are only logged."
    )
    dead_list: str | None = option(
        None, _check_text, "A Redis list: its dead letters, instead of a topic's.", metavar="LIST"
    )
    dead_limit: int = option(
        10_000, check_whole, "Keep N dead letters in Redis; the oldest are dropped, and counted.", least=1, metavar="N"
    )
    instance_id: str | None = option(
        None, _check_text, "The name of this process in the group, for static membership.", metavar="ID"
    )
    start: Start = option(
        "earliest", check_choice, "Where a group begins that has committed nothing.", known=get_args(Start)
    )
    assignment: Assignment = option(
        "sticky", check_choice, "How the members of the group share partitions.", known=get_args(Assignment)
    )
    """"sticky" is cooperative: a rebalance moves as few as it can. The others move all of them, as older clients do."""
    wait: bool = option(False, check_flag, "Wait at start for brokers, topics and sink, instead of failing.")
    connect_timeout: Duration = option(
        10.0, check_seconds, "How long to wait for them otherwise.", above=0, metavar="S"
    )
    shutdown_timeout: Duration = option(
        30.0, check_seconds, "How long running messages may take after a stop.", least=0, metavar="S"
    )
    revoke_timeout: Duration = option(
        10.0, check_seconds, "How long the messages of a revoked partition may take; then they are abandoned.", least=0,
        metavar="S",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, field.metadata["check"](field.name, value))


KAFKA_DEFAULTS: Final = KafkaOptions()


def kafka_options(options: dict[str, Any]) -> KafkaOptions:
    """Return the options of a Kafka worker, from keyword arguments. Raises ConfigurationError."""
    try:
        return KafkaOptions(**options)
    except TypeError:
        known = [field.name for field in fields(KafkaOptions)]
        unknown = ", ".join(repr(name) for name in options if name not in known)
        if not unknown:
            raise
        raise ConfigurationError(f"unknown option {unknown}; a Kafka worker has {', '.join(known)}") from None


def group_settings(
    brokers: str,
    topics: str | Sequence[str],
    group: str,
    options: KafkaOptions,
    properties: Mapping[str, Any] | None,
) -> KafkaSettings:
    """Return the settings of the group. Raises ConfigurationError, also if the extra is not installed."""
    try:
        import confluent_kafka  # noqa: F401 - is it there?
    except ImportError:
        raise ConfigurationError(
            "a Kafka worker needs the extra `kafka` (confluent_kafka is missing): pip install 'redis-worker[kafka]'"
        ) from None
    from redis_worker.kafka.settings import KafkaSettings, topics_of

    return KafkaSettings(
        brokers=brokers,
        topics=topics_of(topics),
        group=group,
        instance_id=options.instance_id,
        start=options.start,
        assignment=options.assignment,
        properties=dict(properties or {}),
    )
