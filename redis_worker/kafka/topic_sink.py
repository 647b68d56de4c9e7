"""Rows as messages of a Kafka topic: others handle them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from redis_worker.ports import Partition, Refusals
from redis_worker.vocabulary.checks import check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.key_pattern import KeyPattern, Row
from redis_worker.vocabulary.payload import dumps

if TYPE_CHECKING:
    from redis_worker.kafka.producing import Record


class KafkaSink:
    """A Sink that sends rows to a topic of Kafka, as JSON; they are written once the brokers have acknowledged them.

        KafkaSink("localhost:9092", "device-alerts", key="{device}")

    It writes again what it is given again: at least once. Rows of one key keep their order.
    """

    stores_offsets = False

    def __init__(
        self,
        brokers: str,
        topic: str,
        *,
        key: str | None = None,
        properties: Mapping[str, Any] | None = None,
        batch_size: int = 500,
        flush_after: Duration = 0.05,
    ) -> None:
        """`key` is the message's key, with names of columns in braces; `properties` are passed to librdkafka.

        Raises ConfigurationError, also if the extra is not installed.
        """
        try:
            from redis_worker.kafka.producing import Producing
            from redis_worker.kafka.settings import check_name, producer
        except ImportError as error:
            raise ConfigurationError(
                f"a KafkaSink needs the extra `kafka` ({error.name} is missing): pip install 'redis-worker[kafka]'"
            ) from None
        self.batch_size = check_whole("batch_size", batch_size, 1)
        self.flush_after = check_seconds("flush_after", flush_after, least=0)
        self._brokers, self._topic = brokers, check_name(topic)
        self._key = None if key is None else KeyPattern("key", key)
        self._producing = Producing(producer(brokers, properties or {}), topic)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Reach the brokers. Raises Disconnected, Refused, ConfigurationError, or UnknownTopic."""
        from redis_worker.kafka.errors import UnknownTopic

        if not await self._producing.open():
            raise UnknownTopic(f"Kafka at {self._brokers} has no topic {self._topic!r}: create it, or check the name")

    async def close(self) -> None:
        """Give up the connections; may be called again."""
        await self._producing.close()

    async def take(
        self,
        group: str,  # noqa: ARG002 - it stores no offsets
        owner: str,  # noqa: ARG002
        partitions: Collection[Partition],  # noqa: ARG002
    ) -> Mapping[Partition, int]:
        """Return nothing: it stores no offsets."""
        return {}

    async def write(
        self,
        values: Sequence[Any],
        *,
        offsets: Mapping[Partition, int] | None = None,  # noqa: ARG002 - it stores none
        refused: Callable[[Refusals], Awaitable[None]] | None = None,
    ) -> Refusals:
        """Send all rows, and return once they are acknowledged. Raises Disconnected or Refused; see Sink.

        Of a value with a row that is no JSON, or has no key, nothing is sent. Of one with a row that the brokers find
        too large, the others are.
        """
        refusals: dict[int, str] = {}
        records: list[Record] = []
        indexes: list[int] = []
        for index, value in enumerate(values):
            try:
                found = [self._record(row) for row in (value if type(value) is list else (value,))]
            except ValueError as error:
                refusals[index] = str(error)
            else:
                records += found
                indexes += [index] * len(found)
        refusals |= {indexes[at]: reason for at, reason in (await self._producing.send(records)).items()}
        if refusals and refused is not None:
            await refused(refusals)
        return refusals

    def _record(self, row: Row) -> Record:
        from redis_worker.kafka.producing import Record

        return Record(dumps(dict(row)), None if self._key is None else self._key.of(row).encode())
