"""The membership in a consumer group: fetching, pausing and commits.

confluent-kafka serialises the calls of a consumer, and librdkafka calls back, and blocks, in the thread that polls. So
one thread makes all calls. No poll lasts long, for commits wait behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.kafka.buffers import Buffers
from redis_worker.kafka.errors import UnknownTopic, error_of, is_login, is_unknown_topic, translated
from redis_worker.kafka.marks import Mark
from redis_worker.kafka.partitions import Commit, OwnedPartition
from redis_worker.kafka.rebalances import Owner, Rebalances
from redis_worker.kafka.settings import KafkaSettings
from redis_worker.ports import Partition
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger(__name__)

# Messages of one call.
_CHUNK = 2000
# A poll waits so long for a message, in seconds: while messages are in flight, for a commit may come, and else.
_BUSY_POLL, _IDLE_POLL = 0.005, 0.1
# The time limit of the question for the topics, in seconds; it is repeated.
_ASK = 2.0
# The time for leaving the group, in seconds, beyond that for the messages of revoked partitions.
_LEAVE = 10.0
# The interval of looking up the ends of partitions, in seconds.
_LOOK_EVERY = 1.0
# The pause after a poll that failed, in seconds.
_AGAIN = 0.5


class Group:
    """One member of a consumer group."""

    def __init__(
        self,
        settings: KafkaSettings,
        owner: Owner,
        buffers: Buffers,
        new: Callable[[Partition, Mark, int | None], OwnedPartition],
    ) -> None:
        """`new` makes a partition of its name, mark and committed offset."""
        self._settings = settings
        self._owner = owner
        self._buffers = buffers
        self._rebalances = Rebalances(owner, new, cooperative=settings.is_cooperative)
        self._consumer: Any = None
        self._threads = ThreadPool(1, "redis-worker-kafka")
        self._trouble: KafkaError | None = None
        """The refusal of a login that librdkafka goes on trying."""
        self._looked_at = 0.0
        self.away: str | None = None
        """The reason why no broker is reachable; None while one is."""

    async def check(self) -> None:
        """Ask the brokers for the topics. Raises Disconnected, Refused or ConfigurationError."""
        if self._consumer is None:
            self._consumer = self._open()
        topics = await self._threads.run(self._ask)
        for topic in self._settings.named:
            if topic not in topics:
                raise UnknownTopic(
                    f"Kafka at {self._settings.brokers} has no topic {topic!r}: create it, or check the name"
                )

    async def probe(self) -> None:
        """Ask the brokers whether they are back. Raises Disconnected or Refused."""
        await self._threads.run(self._ask)
        self.away = None

    async def join(self) -> None:
        """Join the group, once `check` has passed."""
        self._rebalances.loop = asyncio.get_running_loop()
        await self._threads.run(self._subscribe)

    async def run(self) -> None:
        """Fetch until cancelled. Raises Refused."""
        while True:
            pause, resume = await self._buffers.regulate()
            wait = _BUSY_POLL if self._owner.is_busy else _IDLE_POLL
            try:
                fetched = await self._threads.run(self._fetch, pause, resume, wait)
            except Disconnected as error:
                self.away = str(error)
                await asyncio.sleep(_AGAIN)
                continue
            if fetched:
                self.away = None
                self._owner.arrived(fetched)

    async def commit(self, commits: Sequence[Commit]) -> list[TopicPartition]:
        """Commit for partitions that are still owned; return each with its error. Raises Disconnected or Refused."""
        return await self._threads.run(self._commit, commits)

    async def close(self, patience: float) -> None:
        """Leave the group: `revoked` is called for the partitions, and has `patience` seconds. Raises nothing."""
        if self._rebalances.closing or self._consumer is None:
            return
        self._rebalances.closing = True
        closing = self._threads.run(self._close)
        await asyncio.wait({closing}, timeout=patience + _LEAVE)
        if not closing.done():
            logger.warning("Kafka does not answer the farewell; the group notices it by its session timeout")
        self._threads.close()

    def _open(self) -> Any:
        try:
            return Consumer({**self._settings.consumer(), "error_cb": self._on_error, "logger": _Log()})
        except KafkaException as error:
            raise translated(error_of(error)) from None
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"the settings of Kafka are not valid: {error}") from None

    # Calls in the thread.

    def _ask(self) -> set[str]:
        """Return the topics that there are."""
        try:
            found = set(self._consumer.list_topics(timeout=_ASK).topics)
        except KafkaException as error:
            if self._rebalances.loop is None:
                self._consumer.poll(0)  # the reason arrives by a callback
            raise translated(self._trouble or error_of(error)) from None
        self._trouble = None
        return found

    def _subscribe(self) -> None:
        rebalances = self._rebalances
        try:
            self._consumer.subscribe(
                list(self._settings.topics),
                on_assign=rebalances.assign,
                on_revoke=rebalances.revoke,
                on_lost=rebalances.lose,
            )
        except KafkaException as error:
            raise translated(error_of(error)) from None

    def _fetch(
        self, pause: list[TopicPartition], resume: list[TopicPartition], wait: float
    ) -> list[tuple[OwnedPartition, list[Any]]]:
        """Return the messages that arrive within `wait` seconds, by partition."""
        if self._rebalances.closing:
            return []
        try:
            if pause:
                self._consumer.pause(pause)
            if resume:
                self._consumer.resume(resume)
            first = self._consumer.poll(wait)
            messages = () if first is None else (first, *self._consumer.consume(_CHUNK, 0))
        except KafkaException as error:
            raise translated(error_of(error)) from None
        if self._rebalances.error is not None:
            raise self._rebalances.error
        self._look_up_ends()
        by_name: dict[Partition, list[Any]] = {}
        for message in messages:
            if (problem := message.error()) is not None:
                self._on_error(problem)
            elif (found := by_name.get(name := (message.topic(), message.partition()))) is None:
                by_name[name] = [message]
            else:
                found.append(message)
        owned = self._rebalances.owned
        return [(owned[name], found) for name, found in by_name.items() if name in owned]

    def _look_up_ends(self) -> None:
        """Look up the ends of the partitions, which came with the last messages."""
        if (now := time.monotonic()) - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        for name, partition in self._rebalances.owned.items():
            try:
                found = self._consumer.get_watermark_offsets(TopicPartition(*name), cached=True)
            except KafkaException:
                continue
            if found is not None and found[1] >= 0:
                partition.end = int(found[1])

    def _commit(self, commits: Sequence[Commit]) -> list[TopicPartition]:
        if self._rebalances.closing:
            raise Disconnected("the membership ends")
        # A partition may have gone while this call waited: the brokers would let it overwrite what its new owner does.
        offsets = [
            each.request() for each in commits if self._rebalances.owned.get(each.partition.name) is each.partition
        ]
        return self._send(offsets) if offsets else []

    def _send(self, offsets: list[TopicPartition]) -> list[TopicPartition]:
        """Commit `offsets`, and return them with their errors, without those of topics that do not exist any more."""
        try:
            return list(self._consumer.commit(offsets=offsets, asynchronous=False))
        except KafkaException as error:
            if not is_unknown_topic(error_of(error)):
                raise translated(error_of(error)) from None
        # One was deleted, and its partitions are revoked later. The answer does not name it.
        topics = {offset.topic for offset in offsets}
        if len(topics) == 1:
            return []
        return [done for topic in topics for done in self._send([each for each in offsets if each.topic == topic])]

    def _close(self) -> None:
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            logger.debug("closing the consumer: %s", error)

    # A callback in the thread, during a poll or the closing.

    def _on_error(self, error: KafkaError) -> None:
        """Take an error of the client, or of a partition."""
        logger.debug("librdkafka: %s", error.str())
        if is_login(error):
            self._trouble = error
            self.away = str(translated(error))
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.away = self.away or "no broker is reachable"
        elif error.code() == KafkaError._MAX_POLL_EXCEEDED:
            logger.warning("this process slept for longer than max.poll.interval.ms: others have its partitions")
        elif is_unknown_topic(error):
            logger.warning("Kafka has no such topic any more: %s", error.str())
        elif error.fatal() or (self._rebalances.loop is not None and isinstance(translated(error), Refused)):
            self._rebalances.error = self._rebalances.error or translated(error)


class _Log:
    """The log of librdkafka, for those who look for the cause of a trouble: it repeats itself with each attempt."""

    def log(self, level: int, text: str, *arguments: Any) -> None:  # noqa: ARG002 - its level is about its own state
        logger.debug(text, *arguments)
