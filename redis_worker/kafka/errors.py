"""Errors of librdkafka as errors of this library."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, RedisWorkerError, Refused

_LOGIN = frozenset(
    (
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    )
)
_RIGHTS = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    )
)
_UNKNOWN_TOPIC = frozenset((KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART))
_FENCED = frozenset((KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED))
# The connection works again by itself, or the broker has something else to do first.
_PASSING = frozenset(
    (
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._NODE_UPDATE,
        KafkaError._QUEUE_FULL,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
    )
)


class UnknownTopic(Refused):
    """A topic that does not exist: it may be created later."""


def error_of(exception: KafkaException) -> KafkaError:
    """Return the error in an exception of confluent-kafka."""
    error = exception.args[0]
    assert isinstance(error, KafkaError)
    return error


def translated(error: KafkaError) -> RedisWorkerError:
    """Return the error of this library that stands for `error`: Disconnected, Refused or ConfigurationError."""
    code, text = error.code(), _text(error)
    if code in _LOGIN:
        return Refused(f"Kafka refuses the login: {text}; check sasl.username, sasl.password and sasl.mechanism")
    if code == KafkaError._SSL:
        return Refused(f"no TLS connection with Kafka: {text}; check security.protocol and the ssl.* properties")
    if code in _RIGHTS:
        return Refused(f"Kafka forbids it: {text}; the user needs the right to read the topics and the group")
    if code in _UNKNOWN_TOPIC:
        return UnknownTopic(f"Kafka has no such topic: {text}")
    if code in _FENCED or (code == KafkaError._FATAL and "group.instance.id" in text):
        return Refused("another process has joined the group with the same instance_id: give each one of its own")
    if code == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
        return Refused(
            f"Kafka refuses the member: {text}; other members of the group assign partitions in another way: end "
            "them, set `assignment` as they do, or choose another group"
        )
    if code == KafkaError._INVALID_ARG:
        return ConfigurationError(f"the settings of Kafka are not valid: {text}")
    if code in _PASSING or error.retriable():
        return Disconnected(text)
    return Refused(f"Kafka refuses it: {text}")


def is_unknown_topic(error: KafkaError) -> bool:
    """Return True if a topic, or a partition of it, does not exist."""
    return error.code() in _UNKNOWN_TOPIC


def is_login(error: KafkaError) -> bool:
    """Return True if a retry will not help: the login, or TLS, is refused."""
    return error.code() in _LOGIN or error.code() == KafkaError._SSL


def _text(error: KafkaError) -> str:
    """Return the error's text on one line, without the name of the client."""
    text: Any = error.str() or error.name()
    return " ".join(str(text).split())
