"""A group seen from outside: its topics, the offsets that it has committed, its members. Nothing joins the group."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from redis_worker.engine.thread_pool import OwnThreads
from redis_worker.kafka.errors import error_of, is_login, translated
from redis_worker.kafka.settings import KafkaSettings
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, RedisWorkerError, Unreachable

# The longest and the shortest time limit of one request, in seconds: a refused login shows after the first one.
_REQUEST, _LEAST = 1.0, 0.1
# The pause between two tries, in seconds.
_PAUSE = 0.1


class GroupPartition(NamedTuple):
    """A partition, and how far the group is with it."""

    topic: str
    partition: int
    next: int | None
    """The committed offset, the next one to read; None if the group has committed nothing."""
    end: int
    """The offset after the last message."""
    lag: int
    """Messages that the group has still to read."""


class Inspection(NamedTuple):
    """What the brokers report."""

    brokers: int
    """The number of brokers."""
    topics: frozenset[str]
    """All topics."""
    missing: list[str]
    """The named topics of the group that do not exist."""
    partitions: list[GroupPartition]
    members: int | None
    """The number of members; None if the brokers do not report it."""

    @property
    def lag(self) -> int:
        """Messages that the group has still to read."""
        return sum(partition.lag for partition in self.partitions)


async def inspect(settings: KafkaSettings, timeout: float) -> Inspection:
    """Ask the brokers, for `timeout` seconds at most. Raises Unreachable, Refused or ConfigurationError."""
    return await OwnThreads("redis-worker-kafka-inspection").run(_Inspector(settings, timeout).inspect)


def check_properties(settings: KafkaSettings) -> None:
    """Raise ConfigurationError if librdkafka does not accept the properties. Connects to nothing."""
    nowhere = {key: value for key, value in settings.consumer().items() if key != "bootstrap.servers"}
    try:
        Consumer({**nowhere, "log_level": 0}).close()
    except KafkaException as error:
        raise translated(error_of(error)) from None
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the settings of Kafka are not valid: {error}") from None


class _Inspector:
    """One inspection, in a thread. The clients make only calls that wait: their threads have nothing left to do at the
    end, when a late answer could crash the interpreter.
    """

    def __init__(self, settings: KafkaSettings, timeout: float) -> None:
        self._settings = settings
        self._end = time.monotonic() + timeout
        self._login: KafkaError | None = None
        """Why the brokers refuse the login."""

    def inspect(self) -> Inspection:
        check_properties(self._settings)
        client = Consumer({**self._settings.consumer(), "error_cb": self._on_error, "log_level": 0})
        try:
            while True:
                try:
                    return self._seen(client)
                except KafkaException as error:
                    client.poll(0)  # the reason arrives by a callback
                    better = self._translated(error)
                    if time.monotonic() > self._end or not isinstance(better, Unreachable):
                        raise better from None
                time.sleep(_PAUSE)
        finally:
            client.close()

    @property
    def _patience(self) -> float:
        """The time limit of the next request, in seconds."""
        return max(_LEAST, min(_REQUEST, self._end - time.monotonic()))

    def _seen(self, client: Any) -> Inspection:
        metadata = client.list_topics(timeout=self._patience)
        partitions = [
            TopicPartition(name, number)
            for name, topic in sorted(metadata.topics.items())
            if topic.error is None and self._reads(name)
            for number in sorted(topic.partitions)
        ]
        missing = [name for name in self._settings.named if not any(each.topic == name for each in partitions)]
        topics, offsets = frozenset(metadata.topics), self._offsets(client, partitions)
        return Inspection(len(metadata.brokers), topics, missing, offsets, self._members())

    def _reads(self, topic: str) -> bool:
        return any(re.match(each, topic) if each.startswith("^") else each == topic for each in self._settings.topics)

    def _offsets(self, client: Any, partitions: list[TopicPartition]) -> list[GroupPartition]:
        found = []
        for each in client.committed(partitions, timeout=self._patience) if partitions else ():
            next = each.offset if each.offset >= 0 else None
            begin, end = client.get_watermark_offsets(each, timeout=self._patience)
            first = next if next is not None else begin if self._settings.start == "earliest" else end
            found.append(GroupPartition(each.topic, each.partition, next, end, max(0, end - first)))
        return found

    def _members(self) -> int | None:
        client = AdminClient(self._settings.connection() | {"log_level": 0})
        try:
            groups = client.list_groups(self._settings.group, timeout=self._patience)
        except KafkaException:  # the brokers cannot do it, or the right is missing
            return None
        # Dead is what a broker answers for a group that it does not have, or that uses the newer protocol (KIP-848).
        return next((len(group.members) for group in groups if group.state != "Dead"), None)

    def _on_error(self, error: KafkaError) -> None:
        if is_login(error):
            self._login = error

    def _translated(self, exception: KafkaException) -> RedisWorkerError:
        better = translated(error_of(exception) if self._login is None else self._login)
        if not isinstance(better, Disconnected):
            return better
        brokers, reason = self._settings.brokers, str(better).rpartition("Local: ")[2]
        return Unreachable(
            f"no Kafka at {brokers} ({reason}); is it running, and are address and security settings right?"
        )
