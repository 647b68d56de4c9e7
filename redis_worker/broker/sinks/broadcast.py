"""Rows as events for WebSocket clients."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

from redis_worker.broker.client.broadcaster import KEPT, written
from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.keys import EVENTS
from redis_worker.broker.sinks.redis_sink import Command, RedisSink
from redis_worker.vocabulary.channel import check_channel
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.key_pattern import KeyPattern, Row

# Events of one call: the server does nothing else meanwhile.
_BATCH = 500


class BroadcastSink(RedisSink):
    """A sender of rows to channels, as a Broadcaster sends events.

    BroadcastSink("redis://localhost", "device.{device}")
    """

    def __init__(
        self,
        redis: str | Client | Address,
        channel: str,
        *,
        newest: bool = False,
        keep: int = KEPT,
        batch_size: int = 500,
        flush_after: Duration = 0.05,
    ) -> None:
        """`channel` has names of columns in braces; `keep` is as for Broadcaster.

        With `newest`, only the last row of each channel is sent of those that are written together: for states, of
        which people see no more than some a second. Raises ConfigurationError.
        """
        super().__init__(redis, batch_size, flush_after)
        self._channel = KeyPattern("channel", channel)
        self._newest = newest
        self._keep = keep

    def _places(self, rows: Sequence[Row]) -> Sequence[Hashable] | None:
        return self._channel.places(rows) if self._newest else None

    def _commands(self, row: Row) -> list[Command]:
        try:
            return [(check_channel(self._channel.of(row)), written(dict(row)))]
        except ConfigurationError as error:  # of this row: its columns make the channel
            raise ValueError(str(error)) from None

    async def _exchange(self, commands: Sequence[Command]) -> Sequence[Any]:
        ids: list[Any] = []
        for start in range(0, len(commands), _BATCH):
            events = chain.from_iterable(commands[start : start + _BATCH])
            ids += await self._connection.run("broadcast", [EVENTS], [self._keep, *events])
        return ids
