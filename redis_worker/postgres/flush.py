"""One batch of values to a table: at once, or in parts until the rows at fault are alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple
from weakref import WeakSet

from redis_worker.ports import Refusals
from redis_worker.postgres.encoding import encoded, rows_of, unfit
from redis_worker.postgres.errors import Unfit, translated
from redis_worker.postgres.statements import Statements
from redis_worker.postgres.table import Table
from redis_worker.vocabulary.errors import RedisWorkerError

COPY_FROM = 5000
"""The number of rows from which COPY and a merge are faster than arrays."""

Rows = Sequence[Mapping[str, Any]]


class Flushed(NamedTuple):
    """The result of a flush."""

    written: int
    """Rows inserted or updated."""
    refusals: Refusals


class CallbackFailed(RedisWorkerError):
    """Raised when a caller's function raised `cause`: the flush is rolled back."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Plan:
    """A table with its statements: writes rows on a connection."""

    def __init__(self, table: Table, statements: Statements, key: Sequence[str]) -> None:
        self._columns = table.columns
        self._statements = statements
        names = [column.name for column in table.columns]
        self._values = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
        # Two rows with NULL in such a column never conflict: each repetition would add another one.
        self._never_null = [
            number
            for number, column in enumerate(table.columns)
            if column.name in key and not column.not_null and not table.nulls_equal
        ]
        self._staged: WeakSet[Any] = WeakSet()
        """Connections that have the staging table."""

    async def prepare(self, connection: Any) -> None:
        """Create the staging table, outside of any transaction."""
        if connection not in self._staged:
            await connection.execute(self._statements.create_staging)
            self._staged.add(connection)

    async def write(self, connection: Any, rows: Rows, *, copying: bool) -> int:
        """Write rows, and return the number of those inserted or updated. Raises Unfit, or errors of asyncpg.

        `copying` takes COPY, once in a transaction, in place of arrays.
        """
        if not rows:
            return 0
        columns = self._encoded(rows)
        if copying:
            records = zip(*columns, range(len(rows)), strict=True)
            await connection.copy_records_to_table(self._statements.staging, records=records)
            status = await connection.execute(self._statements.merge)
        else:
            status = await connection.execute(self._statements.upsert, *columns)
        return int(status.rpartition(" ")[2])

    def reason(self, error: Unfit) -> str:
        """Return the reason why a row is refused, with the name of the column that the driver could not encode."""
        if error.argument is None:
            return str(error)
        return str(unfit(self._columns[error.argument - 1], error.cause))

    def _encoded(self, rows: Rows) -> list[Sequence[Any]]:
        try:
            columns = list(zip(*map(self._values, rows), strict=True))
        except KeyError as error:
            raise Unfit(f"the row has no value for the column {error.args[0]!r}") from None
        for number in self._never_null:
            if None in columns[number]:
                raise Unfit(f"the column {self._columns[number].name!r} belongs to the key, and cannot be NULL")
        return list(map(encoded, self._columns, columns))


class Flush:
    """One batch of values."""

    def __init__(
        self,
        connection: Any,
        plan: Plan,
        values: Sequence[Any],
        place: str,
        advance: Callable[[], Awaitable[bool]] | None,
        refused: Callable[[Refusals], Awaitable[None]] | None,
    ) -> None:
        """`advance` stores the offsets inside the transaction, and returns False if an earlier try has written all."""
        self._connection = connection
        self._plan = plan
        self._values = values
        self._place = place
        self._advance = advance
        self._refused = refused

    async def run(self) -> Flushed:
        """Write all values that the database accepts. Raises errors of asyncpg, PartitionsLost or CallbackFailed."""
        try:
            rows = _rows(self._values)
            copying = len(rows) >= COPY_FROM
            if copying:
                await self._plan.prepare(self._connection)
            elif self._advance is None:
                return Flushed(await self._plan.write(self._connection, rows, copying=False), {})
            async with self._connection.transaction():
                if self._advance is not None and not await self._advance():
                    return Flushed(0, {})
                return Flushed(await self._plan.write(self._connection, rows, copying=copying), {})
        except Exception as error:
            if not isinstance(translated(error, self._place), Unfit):
                raise
        return await self._run_in_parts()

    async def _run_in_parts(self) -> Flushed:
        refusals: dict[int, str] = {}
        async with self._connection.transaction():
            if self._advance is not None and not await self._advance():
                return Flushed(0, {})
            # Otherwise a deferred constraint would refuse the whole transaction at its end.
            await self._connection.execute("set constraints all immediate")
            written = await self._part(0, len(self._values), refusals)
            if refusals and self._refused is not None:
                try:
                    await self._refused(refusals)
                except Exception as error:
                    raise CallbackFailed(error) from error
        return Flushed(written, refusals)

    async def _part(self, start: int, stop: int, refusals: dict[int, str]) -> int:
        """Write a part of the values, in halves if the database refuses it; return the number of rows written."""
        try:
            rows = _rows(self._values[start:stop])
            if stop - start > 1 and len(rows) >= COPY_FROM:
                raise Unfit("the whole was refused")
            async with self._connection.transaction():
                return await self._plan.write(self._connection, rows, copying=False)
        except Exception as error:
            fault = translated(error, self._place)
            if not isinstance(fault, Unfit):
                raise
        if stop - start == 1:
            refusals[start] = self._plan.reason(fault)
            return 0
        middle = (start + stop) // 2
        return await self._part(start, middle, refusals) + await self._part(middle, stop, refusals)


def _rows(values: Sequence[Any]) -> Rows:
    if set(map(type, values)) <= {dict}:
        return values
    return list(chain.from_iterable(map(rows_of, values)))
