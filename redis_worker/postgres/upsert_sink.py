"""A table as a destination: rows are inserted, or update the row with the same key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Self
from weakref import WeakKeyDictionary

from redis_worker.engine.retry import backoff
from redis_worker.ports import Partition, Refusals
from redis_worker.postgres.counters import FlushCounters
from redis_worker.postgres.database import Database
from redis_worker.postgres.errors import Conflict, RowRefused
from redis_worker.postgres.flush import CallbackFailed, Flush, Flushed, Plan
from redis_worker.postgres.gathering import Gathering
from redis_worker.postgres.offsets import OffsetStore
from redis_worker.postgres.statements import statements
from redis_worker.postgres.table import read_table, table_name
from redis_worker.vocabulary.checks import check_flag, check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError, Refused

# Tries of a transaction that lost against another one, before it counts as an outage.
_TRIES = 5
_STAGING = "redis_worker_staging"


class UpsertSink:
    """A PostgreSQL table that takes rows, as mappings of columns to values, in batches. It is a Sink.

    A Kafka worker calls `write`. In a processor or a topic's handler, `await sink.add(row)` returns when the row is
    committed; in a batch handler `await sink.save(rows)` does, for all of them. Both wait while the database is away.

    It may be made anywhere; it connects at the first use, once for each event loop, and an `async with` block or
    `close` ends it. Of several rows with the same key the last one stands, or the one with the highest `version`.
    """

    def __init__(
        self,
        dsn: str,
        table: str,
        *,
        key: Sequence[str],
        columns: Sequence[str] | Mapping[str, str] | None = None,
        update: Sequence[str] | None = None,
        version: str | None = None,
        batch_size: int = 500,
        flush_after: Duration = 0.5,
        stores_offsets: bool = False,
        offsets_table: str = "redis_worker_offsets",
        timeout: Duration = 60,
    ) -> None:
        """Raises ConfigurationError for a setting that no table could make right.

        `key`: columns with a primary key or a unique index. `columns`: those to write, or their types too, which
        `open` compares (`{"cases": "integer"}`); by default those named here and all without a default value.
        `update`: columns that change in an existing row, by default all but the key; none at all leaves existing rows
        as they are. `version`: a column; a row never overwrites one with a higher version. `stores_offsets`: commit
        offsets of Kafka with the rows, in `offsets_table`. `timeout` limits each statement.
        """
        self._database = Database(dsn, timeout)
        table_name(table)
        self._table = table
        self._types = dict(columns) if isinstance(columns, Mapping) else {}
        self._columns = None if columns is None else _names("columns", list(columns))
        self._key = _names("key", key)
        self._version = version
        self._update = None if update is None else _names("update", update, may_be_empty=True)
        self._check_columns()
        self.batch_size = check_whole("batch_size", batch_size, 1)
        self.flush_after = check_seconds("flush_after", flush_after, least=0)
        self.stores_offsets = check_flag("stores_offsets", stores_offsets)
        self._offsets = OffsetStore(offsets_table)
        self._plan: Plan | None = None
        self._gatherings: WeakKeyDictionary[asyncio.AbstractEventLoop, Gathering[Any, None]] = WeakKeyDictionary()
        self.counters = FlushCounters()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, and read the table's columns and indexes.

        Raises Disconnected, Refused (a wrong password; no such database, table or column; no unique index for the key;
        another type) or ConfigurationError.
        """
        async with self._database.session.use() as connection:
            self._plan = await self._read_plan(connection)

    async def close(self) -> None:
        """Write what `add` has collected in this event loop, and close the connections."""
        if gathering := self._gatherings.get(asyncio.get_running_loop()):
            await gathering.finish()
        await self._database.close()

    async def add(self, row: Mapping[str, Any]) -> None:
        """Write a row together with those that other tasks add; return when it is committed.

        A batch is written once it has `batch_size` rows, or its first row has waited for `flush_after`. Raises
        RowRefused, or Refused if nothing can be written.
        """
        loop = asyncio.get_running_loop()
        gathering = self._gatherings.get(loop)
        if gathering is None:
            gathering = self._gatherings[loop] = Gathering(self._save_added, self.batch_size, self.flush_after)
        await gathering.submit(row)

    async def save(self, rows: Sequence[Any]) -> Refusals:
        """Write rows, waiting while the database is away; return the refused ones, as `write` does. Raises Refused."""
        return await self._database.patiently(partial(self.write, rows))

    async def take(self, group: str, owner: str, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """See Sink."""
        async with self._database.session.use() as connection:
            if self._plan is None:
                self._plan = await self._read_plan(connection)
            return await self._offsets.take(connection, group, owner, partitions)

    async def write(
        self,
        values: Sequence[Any],
        *,
        offsets: Mapping[Partition, int] | None = None,
        refused: Callable[[Refusals], Awaitable[None]] | None = None,
    ) -> Refusals:
        """See Sink. A deadlock or a serialisation failure is tried again at once, with a short pause."""
        started = time.perf_counter()
        try:
            flushed = await self._write_in_spite_of_conflicts(values, offsets, refused)
        except CallbackFailed as error:
            self.counters.failed += 1
            raise error.cause from None
        except Refused:
            self._plan = None  # the table may be another one after it was mended
            self.counters.failed += 1
            raise
        except Exception:
            self.counters.failed += 1
            raise
        self._count(len(values), flushed, time.perf_counter() - started)
        return flushed.refusals

    async def _write_in_spite_of_conflicts(
        self,
        values: Sequence[Any],
        offsets: Mapping[Partition, int] | None,
        refused: Callable[[Refusals], Awaitable[None]] | None,
    ) -> Flushed:
        for tries in range(1, _TRIES + 1):
            try:
                return await self._write_once(values, offsets, refused)
            except Conflict:
                if tries == _TRIES:
                    raise
                self.counters.retried += 1
            await asyncio.sleep(backoff(0.02, 1.0, tries))
        raise AssertionError  # the last try returns or raises

    async def _write_once(
        self,
        values: Sequence[Any],
        offsets: Mapping[Partition, int] | None,
        refused: Callable[[Refusals], Awaitable[None]] | None,
    ) -> Flushed:
        async with self._database.session.use() as connection:
            if self._plan is None:
                self._plan = await self._read_plan(connection)
            advance = partial(self._offsets.advance, connection, offsets) if offsets else None
            return await Flush(connection, self._plan, values, self._database.place, advance, refused).run()

    async def _read_plan(self, connection: Any) -> Plan:
        named = dict.fromkeys((*self._key, *(self._update or ()), *([self._version] if self._version else ())))
        table = await read_table(connection, self._table, self._key, named, self._columns, self._types)
        names = [column.name for column in table.columns]
        update = [name for name in names if name not in self._key] if self._update is None else list(self._update)
        if self._version is not None and self._version not in update:
            update.append(self._version)
        if self.stores_offsets:
            await self._offsets.open(connection)
        return Plan(table, statements(table, self._key, update, self._version, _STAGING), self._key)

    async def _save_added(self, rows: list[Mapping[str, Any]]) -> Sequence[Exception | None]:
        refusals = await self.save(rows)
        return [RowRefused(refusals[number]) if number in refusals else None for number in range(len(rows))]

    def _count(self, values: int, flushed: Flushed, seconds: float) -> None:
        counters = self.counters
        counters.flushes += 1
        counters.values += values
        counters.written += flushed.written
        counters.refused += len(flushed.refusals)
        counters.seconds += seconds

    def _check_columns(self) -> None:
        for setting, names in (("key", self._key), ("update", self._update or ()), ("version", [self._version])):
            for name in names:
                if name is not None and self._columns is not None and name not in self._columns:
                    raise ConfigurationError(f"{setting} has {name!r}, which is not among the columns")
        if self._version is not None and (self._update == () or self._version in self._key):
            raise ConfigurationError("version needs a column that is updated: not one of the key, and not update=[]")


def _names(setting: str, names: Sequence[str], may_be_empty: bool = False) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) and name and "\0" not in name for name in names):
        raise ConfigurationError(f"{setting} must be a list of names of columns, got {names!r}")
    if not (names or may_be_empty) or len(set(names)) < len(names):
        raise ConfigurationError(f"{setting} must name {'columns' if may_be_empty else 'a column or more'}, each once")
    return tuple(names)
