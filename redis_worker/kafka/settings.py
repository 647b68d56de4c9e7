"""The settings of a consumer group: brokers, topics, and the properties of librdkafka."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis_worker.vocabulary.errors import ConfigurationError

# Properties that decide what this worker promises, each with the setting to use instead.
_OURS = {
    "bootstrap.servers": "the setting `brokers`",
    "metadata.broker.list": "the setting `brokers`",
    "group.id": "the setting `group`",
    "group.instance.id": "the setting `instance_id`",
    "auto.offset.reset": "the setting `start`",
    "enable.auto.commit": "nothing: offsets are committed once their messages are settled",
    "auto.commit.interval.ms": "nothing: offsets are committed once their messages are settled",
    "enable.auto.offset.store": "nothing: offsets are committed once their messages are settled",
    "partition.assignment.strategy": "the setting `assignment`",
    "enable.partition.eof": "nothing: a worker has no use for it",
}
# These say how to connect; all others are for the consumer alone.
_CONNECTION = re.compile(
    r"(security|sasl|ssl|enable\.ssl|enable\.sasl|https|client|socket|broker|metadata|reconnect|connections|api"
    r"|debug|log|resolve|retry|receive|test\.mock)[._].*|debug|log_level"
)
# Property names that are secrets, or may contain one.
_SECRET = re.compile(r"password|secret|\.pem$|oauthbearer\.config|\.key$|token")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER = re.compile(r"([A-Z_]+://)?([^\s:/@\[\]]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
# librdkafka's names of assignments.
_STRATEGIES = {"sticky": "cooperative-sticky", "round-robin": "roundrobin", "range": "range"}
_TYPES = (str, int, float, bool)
# Fetching goes on soon after the local queue was full; librdkafka's second costs two thirds of the throughput.
_QUICK = {"fetch.queue.backoff.ms": 5}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class KafkaSettings:
    """The settings of one member of a group. Raises ConfigurationError."""

    brokers: str
    """As "host:port,host:port"."""
    topics: tuple[str, ...]
    """Names, and regular expressions that begin with "^"."""
    group: str
    instance_id: str | None = None
    start: str = "earliest"
    assignment: str = "sticky"
    """How the group shares partitions: "sticky" moves as few as it can, "round-robin" and "range" move all of them."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """Further properties of librdkafka."""

    def __post_init__(self) -> None:
        _check_text("brokers", self.brokers)
        try:
            check_brokers(self.brokers)
        except ValueError as error:
            raise ConfigurationError(f"the Kafka setting brokers {error}") from None
        _check_text("group", self.group)
        if not self.topics:
            raise ConfigurationError("a Kafka worker needs a topic")
        for topic in self.topics:
            _check_topic(topic)
        if self._brokers_assign and not self.is_cooperative:
            raise ConfigurationError(f"assignment {self.assignment!r} needs the property group.protocol to be classic")
        for name, value in self.properties.items():
            if name in _OURS:
                raise ConfigurationError(f"the Kafka property {name} cannot be set; use {_OURS[name]}")
            if not isinstance(name, str) or not isinstance(value, _TYPES):
                raise ConfigurationError(f"the Kafka property {name} must be a text, a number or a flag")

    @property
    def _brokers_assign(self) -> bool:
        return self.properties.get("group.protocol") == "consumer"  # KIP-848

    @property
    def is_cooperative(self) -> bool:
        """True if a rebalance takes and gives single partitions, not all of them."""
        return self.assignment == "sticky"

    @property
    def named(self) -> list[str]:
        """The topics given by name."""
        return [topic for topic in self.topics if not topic.startswith("^")]

    def consumes(self, topic: str) -> bool:
        """Return True if `topic` is one of the topics, or matches an expression."""
        return any(re.match(each, topic) if each.startswith("^") else each == topic for each in self.topics)

    def consumer(self) -> dict[str, Any]:
        """Return the configuration of a consumer."""
        assignment = {"partition.assignment.strategy": _STRATEGIES[self.assignment]}
        if self._brokers_assign:
            assignment = {}
        static = {} if self.instance_id is None else {"group.instance.id": self.instance_id}
        return {
            **_QUICK,
            **self.properties,
            **assignment,
            **static,
            "bootstrap.servers": self.brokers,
            "group.id": self.group,
            "auto.offset.reset": self.start,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }

    def connection(self) -> dict[str, Any]:
        """Return the configuration of any client of the same brokers: the properties that say how to connect."""
        connection = {name: value for name, value in self.properties.items() if _CONNECTION.fullmatch(name)}
        return {**connection, "bootstrap.servers": self.brokers}

    def producer(self) -> dict[str, Any]:
        """Return the configuration of a producer on the same brokers."""
        return producer(self.brokers, self.connection())

    def __repr__(self) -> str:
        topics, properties = ",".join(self.topics), masked(self.properties)
        return f"KafkaSettings({self.brokers}, {topics}, group={self.group}, properties={properties})"


def producer(brokers: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a producer, with further properties of librdkafka. Raises ConfigurationError."""
    try:
        check_brokers(brokers)
    except ValueError as error:
        raise ConfigurationError(f"the Kafka setting brokers {error}") from None
    # What is sent is flushed at once. Sent twice by librdkafka itself, it is kept once, and in order.
    return {**properties, "bootstrap.servers": brokers, "linger.ms": 0, "enable.idempotence": True}


def masked(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return `properties` with *** for every value that may be a secret."""
    return {name: "***" if _SECRET.search(name) else value for name, value in properties.items()}


def topics_of(topics: str | Sequence[str]) -> tuple[str, ...]:
    """Return one topic, or several, as a tuple. Raises ConfigurationError for anything else."""
    if isinstance(topics, str):
        return (topics,)
    if not isinstance(topics, Sequence) or not all(isinstance(topic, str) for topic in topics):
        raise ConfigurationError(f"topics must be a name, or a list of names, got {topics!r}")
    return tuple(topics)


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"the Kafka setting {name} must be a text that is not empty, got {value!r}")


def check_brokers(brokers: str) -> str:
    """Return `brokers`, one or more "host:port" with commas between. Raises ValueError."""
    if not all(_BROKER.fullmatch(broker.strip()) for broker in brokers.split(",")):
        # The text is not quoted: it may be the address of something else, with a password.
        raise ValueError(
            "must be host:port,host:port; a user name and a password belong to the properties sasl.username and "
            "sasl.password"
        )
    return brokers


def _check_topic(topic: str) -> None:
    if topic.startswith("^"):
        try:
            re.compile(topic)
        except re.error as error:
            raise ConfigurationError(f"the topic {topic!r} is no regular expression: {error}") from None
    else:
        check_name(topic)


def check_name(topic: str) -> str:
    """Return `topic`. Raises ConfigurationError if it is no name of a topic."""
    if not _TOPIC.fullmatch(topic):
        raise ConfigurationError(
            f"{topic!r} is no topic of Kafka: letters, digits, '.', '_' and '-'; a regular expression begins with ^"
        )
    return topic
