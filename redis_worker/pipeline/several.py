"""Several sinks at once: each gets its own rows of what a handler returns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

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
        rows = self._distribute(values, refusals)
        others = [name for name in rows if name != self._storing]
        written = await asyncio.gather(
            *(self._sinks[name].write([row for _, row in rows[name]]) for name in others), return_exceptions=True
        )
        for name, answer in zip(others, written, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            refusals |= {rows[name][at][0]: f"{name}: {reason}" for at, reason in answer.items()}
        if refusals and refused is not None:
            await refused(refusals)
        if self._storing is None:
            return refusals
        last = await self._write_last(self._storing, rows.get(self._storing, []), offsets, refused, refusals)
        return {**last, **refusals}

    async def _write_last(
        self,
        name: str,
        rows: Sequence[tuple[int, Any]],
        offsets: Mapping[Partition, int] | None,
        refused: Callable[[Refusals], Awaitable[None]] | None,
        before: Refusals,
    ) -> Refusals:
        """Write the rows of the sink that stores offsets, and return its refusals by index of the values."""

        def named(refusals: Refusals) -> dict[int, str]:
            return {rows[at][0]: f"{name}: {reason}" for at, reason in refusals.items()}

        async def report(refusals: Refusals) -> None:
            new = {index: reason for index, reason in named(refusals).items() if index not in before}
            if new and refused is not None:
                await refused(new)

        return named(await self._sinks[name].write([row for _, row in rows], offsets=offsets, refused=report))

    def _distribute(self, values: Sequence[Any], refusals: dict[int, str]) -> dict[str, list[tuple[int, Any]]]:
        """Return the rows of each sink, with the indexes of their values."""
        rows: dict[str, list[tuple[int, Any]]] = {}
        for index, value in enumerate(values):
            for each in value if type(value) is list else (value,):
                for name, row in each.items():
                    if name not in self._sinks:
                        refusals[index] = f"there is no sink {name!r}, only {', '.join(self._sinks)}"
                    elif row:
                        rows.setdefault(name, []).append((index, row))
        return rows
