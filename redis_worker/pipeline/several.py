"""Several sinks at once: each gets its own rows of what a handler returns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from redis_worker.ports import Partition, Refusals, Sink
from redis_worker.vocabulary.errors import ConfigurationError


class Sinks:
    """Several sinks, by name. It is a Sink.

        Sinks(latest=CacheSink(...), alerts=BroadcastSink(...), minutes=UpsertSink(...))

    A value names the sinks of its rows: `{"latest": row, "alerts": [row, row]}`. All but the one that stores offsets
    are written at the same time, then that one. If one fails, all are written again: at least once, except
    where offsets are stored. A message is a dead letter if one sink refuses a row of it; its other rows are written.
    """

    def __init__(self, **sinks: Sink) -> None:
        """Raises ConfigurationError without a sink, or if two store offsets."""
        if not sinks:
            raise ConfigurationError("Sinks needs at least one sink")
        if wrong := [name for name, sink in sinks.items() if not isinstance(sink, Sink)]:
            raise ConfigurationError(f"{wrong[0]} is not a sink")
        storing = [name for name, sink in sinks.items() if sink.stores_offsets]
        if len(storing) > 1:
            raise ConfigurationError(f"only one sink can store offsets, not both {storing[0]} and {storing[1]}")
        self._sinks = sinks
        self._storing = storing[0] if storing else None
        self.batch_size = min(sink.batch_size for sink in sinks.values())
        self.flush_after = min(sink.flush_after for sink in sinks.values())
        self.stores_offsets = bool(storing)

    async def open(self) -> None:
        """Open all. Raises as they do."""
        for sink in self._sinks.values():
            await sink.open()

    async def close(self) -> None:
        """Close all."""
        await asyncio.gather(*(sink.close() for sink in self._sinks.values()))

    async def take(self, group: str, owner: str, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Take partitions of the sink that stores offsets."""
        return {} if self._storing is None else await self._sinks[self._storing].take(group, owner, partitions)

    async def write(
        self,
        values: Sequence[Any],
        *,
        offsets: Mapping[Partition, int] | None = None,
        refused: Callable[[Refusals], Awaitable[None]] | None = None,
    ) -> Refusals:
        """Write the rows of each sink; see Sink."""
        refusals: dict[int, str] = {}
        shares = self._distribute(values, refusals)
        others = [name for name, share in shares.items() if share.rows and name != self._storing]
        written = await asyncio.gather(
            *(self._sinks[name].write(shares[name].rows) for name in others), return_exceptions=True
        )
        for name, answer in zip(others, written, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            refusals |= shares[name].named(answer)
        if refusals and refused is not None:
            await refused(refusals)
        if self._storing is None:
            return refusals
        last = await self._write_last(shares[self._storing], offsets, refused, refusals)
        return {**last, **refusals}

    async def _write_last(
        self,
        share: _Share,
        offsets: Mapping[Partition, int] | None,
        refused: Callable[[Refusals], Awaitable[None]] | None,
        before: Refusals,
    ) -> Refusals:
        """Write the rows of the sink that stores offsets, and return its refusals by index of the values."""

        async def report(refusals: Refusals) -> None:
            new = {index: reason for index, reason in share.named(refusals).items() if index not in before}
            if new and refused is not None:
                await refused(new)

        return share.named(await self._sinks[share.sink].write(share.rows, offsets=offsets, refused=report))

    def _distribute(self, values: Sequence[Any], refusals: dict[int, str]) -> dict[str, _Share]:
        """Return the share of each sink. The hot path."""
        shares = {name: _Share(name, [], []) for name in self._sinks}
        for index, value in enumerate(values):
            for each in value if type(value) is list else (value,):
                for name, row in each.items():
                    if (share := shares.get(name)) is None:
                        refusals[index] = f"there is no sink {name!r}, only {', '.join(self._sinks)}"
                    elif row:
                        share.rows.append(row)
                        share.indexes.append(index)
        return shares


class _Share(NamedTuple):
    """The rows of one sink, with the indexes of their values."""

    sink: str
    rows: list[Any]
    indexes: list[int]

    def named(self, refusals: Refusals) -> dict[int, str]:
        """Return refusals of rows as those of values."""
        return {self.indexes[at]: f"{self.sink}: {reason}" for at, reason in refusals.items()}
