"""A group seen from outside: its topics, the offsets that it has committed, its members. Nothing joins the group."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka import admin as _admin

from redis_worker.engine.thread_pool import OwnThreads
from redis_worker.kafka.errors import error_of, is_login, translated
from redis_worker.kafka.settings import KafkaSettings
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, RedisWorkerError, Unreachable

admin: Any = _admin  # its types do not name all that it has
# The time limit of one request, in seconds: after it the next one shows whether the brokers are reachable.
_REQUEST = 1.0


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
    missing: list[str]
    """The named topics that do not exist."""
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
    def __init__(self, settings: KafkaSettings, timeout: float) -> None:
        self._settings = settings
        self._end = time.monotonic() + timeout
        self._timeout = timeout
        self._login: KafkaError | None = None
        """Why the brokers refuse the login."""

    def inspect(self) -> Inspection:
        check_properties(self._settings)
        client = admin.AdminClient({**self._settings.connection(), "error_cb": self._on_error, "log_level": 0})
        metadata = self._metadata(client)
        partitions = [
            TopicPartition(name, number)
            for name, topic in sorted(metadata.topics.items())
            if topic.error is None and self._reads(name)
            for number in sorted(topic.partitions)
        ]
        missing = [name for name in self._settings.named if not any(each.topic == name for each in partitions)]
        try:
            offsets = self._offsets(client, partitions)
        except KafkaException as error:
            raise self._translated(error) from None
        return Inspection(len(metadata.brokers), missing, offsets, self._members(client))

    def _reads(self, topic: str) -> bool:
        return any(re.match(each, topic) if each.startswith("^") else each == topic for each in self._settings.topics)

    def _metadata(self, client: Any) -> Any:
        """Return the metadata, from the first broker that answers."""
        while True:
            left = self._end - time.monotonic()
            try:
                return client.list_topics(timeout=max(0.1, min(_REQUEST, left)))
            except KafkaException as error:
                client.poll(0)  # the reason arrives by a callback
                better = self._translated(error)
                if left <= 0 or not isinstance(better, (Disconnected, Unreachable)):
                    raise better from None

    def _offsets(self, client: Any, partitions: list[TopicPartition]) -> list[GroupPartition]:
        if not partitions:
            return []
        group = self._settings.group
        asked = ConsumerGroupTopicPartitions(group, partitions)
        committed = client.list_consumer_group_offsets([asked], request_timeout=self._timeout)[group].result()
        nexts = {(each.topic, each.partition): each.offset for each in committed.topic_partitions if each.offset >= 0}
        new = [each for each in partitions if (each.topic, each.partition) not in nexts]
        ends = self._listed(client, partitions, admin.OffsetSpec.latest())
        begins = self._listed(client, new, admin.OffsetSpec.earliest()) if self._settings.start == "earliest" else ends
        found = []
        for name, end in ends.items():
            next = nexts.get(name)
            lag = end - (begins[name] if next is None else next)
            found.append(GroupPartition(*name, next, end, max(0, lag)))
        return found

    def _listed(self, client: Any, partitions: Iterable[TopicPartition], spec: Any) -> dict[tuple[str, int], int]:
        asked = dict.fromkeys(partitions, spec)
        if not asked:
            return {}
        listed = client.list_offsets(asked, request_timeout=self._timeout)
        return {(each.topic, each.partition): future.result().offset for each, future in listed.items()}

    def _members(self, client: Any) -> int | None:
        group = self._settings.group
        try:
            described = client.describe_consumer_groups([group], request_timeout=self._timeout)[group].result()
        except KafkaException:  # an older broker, or the right to describe the group is missing
            return None
        return len(described.members)

    def _on_error(self, error: KafkaError) -> None:
        if is_login(error):
            self._login = error

    def _translated(self, exception: KafkaException) -> RedisWorkerError:
        better = translated(error_of(exception) if self._login is None else self._login)
        if not isinstance(better, Disconnected):
            return better
        return Unreachable(f"no Kafka at {self._settings.brokers} ({better}); is it running, and is the address right?")
