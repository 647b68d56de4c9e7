"""The membership in a consumer group: fetching, pausing, rebalances and commits.

confluent-kafka serialises the calls of a consumer, and librdkafka calls back, and blocks, in the thread that polls. So
one thread makes all calls. No poll lasts long, for commits wait behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.kafka.buffers import Buffers
from redis_worker.kafka.errors import UnknownTopic, error_of, is_login, is_unknown_topic, translated
from redis_worker.kafka.marks import Mark, read_mark
from redis_worker.kafka.partitions import Commit, OwnedPartition
from redis_worker.kafka.settings import KafkaSettings
from redis_worker.ports import Partition
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, RedisWorkerError, Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger(__name__)

T = TypeVar("T")

# Messages of one call.
_CHUNK = 2000
# A poll waits so long for a message, in seconds: while messages are in flight, for a commit may come, and else.
_BUSY_POLL, _IDLE_POLL = 0.005, 0.1
# The time limits of requests to the brokers, in seconds: of those that are repeated, and of others.
_ASK, _REQUEST = 2.0, 10.0
# The time for leaving the group, in seconds, beyond that for the messages of revoked partitions.
_LEAVE = 10.0
# The interval of looking up the ends of partitions, in seconds.
_LOOK_EVERY = 1.0
# The pause after a poll that failed, in seconds.
_AGAIN = 0.5


class Owner(Protocol):
    """The receiver of what a membership brings; all methods run on the event loop."""

    @property
    def is_busy(self) -> bool:
        """True while messages are in flight: a commit may come soon."""

    def arrived(self, fetched: Sequence[tuple[OwnedPartition, list[Any]]]) -> None:
        """Take messages that are fetched."""

    async def assigned(self, partitions: Sequence[OwnedPartition]) -> Mapping[Partition, int]:
        """Take partitions; return the offsets to begin with where they are not the committed ones."""

    async def revoked(self, partitions: Sequence[OwnedPartition]) -> Sequence[TopicPartition]:
        """Give partitions up; return the offsets to commit for them."""

    def lost(self, partitions: Sequence[OwnedPartition]) -> None:
        """Give up partitions that others may own already."""


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
        self._new = new
        self._owned: dict[Partition, OwnedPartition] = {}
        """The partitions of this member, for the thread."""
        self._consumer: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = ThreadPool(1, "redis-worker-kafka")
        self._closing = False
        self._trouble: KafkaError | None = None
        """The refusal of a login that librdkafka goes on trying."""
        self._error: RedisWorkerError | None = None
        """The error that ends the membership."""
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
        self._loop = asyncio.get_running_loop()
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
        if self._closing or self._consumer is None:
            return
        self._closing = True
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
            if self._loop is None:
                self._consumer.poll(0)  # the reason arrives by a callback
            raise translated(self._trouble or error_of(error)) from None
        self._trouble = None
        return found

    def _subscribe(self) -> None:
        try:
            self._consumer.subscribe(
                list(self._settings.topics), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose
            )
        except KafkaException as error:
            raise translated(error_of(error)) from None

    def _fetch(
        self, pause: list[TopicPartition], resume: list[TopicPartition], wait: float
    ) -> list[tuple[OwnedPartition, list[Any]]]:
        """Return the messages that arrive within `wait` seconds, by partition."""
        if self._closing:
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
        if self._error is not None:
            raise self._error
        self._look_up_ends()
        by_partition: dict[OwnedPartition, list[Any]] = {}
        for message in messages:
            if (problem := message.error()) is not None:
                self._on_error(problem)
            elif (partition := self._owned.get((message.topic(), message.partition()))) is not None:
                by_partition.setdefault(partition, []).append(message)
        return list(by_partition.items())

    def _look_up_ends(self) -> None:
        """Look up the ends of the partitions, which came with the last messages."""
        if (now := time.monotonic()) - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        for name, partition in self._owned.items():
            try:
                found = self._consumer.get_watermark_offsets(TopicPartition(*name), cached=True)
            except KafkaException:
                continue
            if found is not None and found[1] >= 0:
                partition.end = int(found[1])

    def _commit(self, commits: Sequence[Commit]) -> list[TopicPartition]:
        if self._closing:
            raise Disconnected("the membership ends")
        # A partition may have gone while this call waited: the brokers would let it overwrite what its new owner does.
        offsets = [each.request() for each in commits if self._owned.get(each.partition.name) is each.partition]
        if not offsets:
            return []
        try:
            return list(self._consumer.commit(offsets=offsets, asynchronous=False))
        except KafkaException as error:
            if is_unknown_topic(error_of(error)):  # it was deleted; its partitions are revoked soon
                raise Disconnected(error_of(error).str()) from None
            raise translated(error_of(error)) from None

    def _close(self) -> None:
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            logger.debug("closing the consumer: %s", error)

    # Callbacks in the thread, during a poll or the closing.

    def _assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        committed = self._committed(partitions)
        new = []
        for partition in partitions:
            name = partition.topic, partition.partition
            offset, mark = committed.get(name, (None, Mark()))
            new.append(self._new(name, mark, offset))
        begin = self._wait_for(self._owner.assigned(new)) or {}
        self._owned |= {partition.name: partition for partition in new}
        for partition in partitions:
            if (stored := begin.get((partition.topic, partition.partition))) is not None:
                partition.offset = stored
        consumer.incremental_assign(partitions)
        consumer.resume(partitions)  # from a pause during an earlier assignment

    def _committed(self, partitions: list[TopicPartition]) -> dict[Partition, tuple[int, Mark]]:
        """Return the committed offsets, with their marks for the new owner, of partitions that have them."""
        while not self._closing:
            try:
                found = self._consumer.committed(partitions, timeout=_REQUEST)
            except KafkaException as error:
                if not isinstance(translated(error_of(error)), Disconnected):
                    raise
                continue
            return {
                (each.topic, each.partition): (each.offset, read_mark(each.metadata).inherited(each.offset))
                for each in found
                if each.error is None and each.offset >= 0
            }
        return {}

    def _revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        offsets = self._wait_for(self._owner.revoked(self._leaving(partitions)))
        if offsets:
            try:
                consumer.commit(offsets=list(offsets), asynchronous=False)
            except KafkaException as error:
                logger.warning("the offsets of revoked partitions are not committed: %s", error_of(error).str())
        consumer.incremental_unassign(partitions)

    def _lose(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._tell(self._owner.lost, self._leaving(partitions))
        consumer.incremental_unassign(partitions)

    def _leaving(self, partitions: Iterable[TopicPartition]) -> list[OwnedPartition]:
        found = (self._owned.pop((partition.topic, partition.partition), None) for partition in partitions)
        return [partition for partition in found if partition is not None]

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
        elif error.fatal() or (self._loop is not None and isinstance(translated(error), Refused)):
            self._error = self._error or translated(error)

    # From the thread to the event loop.

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody waits for it

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return the result of `work` on the event loop; None if it failed, which ends the membership."""
        assert self._loop is not None
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed
            work.close()
            return None
        while True:
            try:
                return future.result(1.0)
            except TimeoutError:
                if self._loop.is_closed() or future.done():
                    return None
            except CancelledError:
                return None
            except RedisWorkerError as error:
                self._error = self._error or error
                return None


class _Log:
    """The log of librdkafka, for those who look for the cause of a trouble: it repeats itself with each attempt."""

    def log(self, level: int, text: str, *arguments: Any) -> None:  # noqa: ARG002 - its level is about its own state
        logger.debug(text, *arguments)
