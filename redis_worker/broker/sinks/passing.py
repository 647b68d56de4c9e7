"""Rows as JSON in a list, and as messages of a topic: others handle them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis_worker.broker.client.publisher import Publisher
from redis_worker.broker.connection.address import Client
from redis_worker.broker.sinks.redis_sink import Command, RedisSink
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.ids import new_id
from redis_worker.vocabulary.key_pattern import KeyPattern, Row
from redis_worker.vocabulary.message import check_topic, write_message
from redis_worker.vocabulary.payload import dumps


class ListSink(RedisSink):
    """A Redis list to which rows are pushed, as JSON: `{"id": …, "task": […]}` for a pool."""

    def __init__(self, redis: str | Client, key: str, *, batch_size: int = 500, flush_after: Duration = 0.05) -> None:
        """Raises ConfigurationError."""
        super().__init__(redis, batch_size, flush_after)
        if not key:
            raise ConfigurationError("key must be the name of a list")
        self._key = key

    def _commands(self, row: Row) -> list[Command]:
        return [("RPUSH", self._key, dumps(dict(row)))]


class TopicSink(RedisSink):
    """A topic in Redis to which rows are published; a row is the message's data."""

    def __init__(
        self,
        redis: str | Client,
        topic: str,
        *,
        id: str | None = None,
        batch_size: int = 500,
        flush_after: Duration = 0.05,
    ) -> None:
        """`id` has names of columns in braces: an idempotent handler drops what is written again.

        Raises ConfigurationError.
        """
        super().__init__(redis, batch_size, flush_after)
        self._topic = check_topic(topic)
        self._id = None if id is None else KeyPattern("id", id)
        self._publisher = Publisher(redis)

    async def close(self) -> None:
        """Close all connections opened here."""
        await self._publisher.close()
        await super().close()

    def _commands(self, row: Row) -> list[Command]:
        id = new_id() if self._id is None else self._id.of(row)
        return [(write_message(self._topic, dict(row), id),)]

    async def _exchange(self, commands: Sequence[Command]) -> Sequence[Any]:
        await self._publisher.push_raw(self._topic, [raw for (raw,) in commands])
        return [None] * len(commands)
