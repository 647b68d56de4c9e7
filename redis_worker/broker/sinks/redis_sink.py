"""The base of the sinks in Redis: rows become commands, which are sent together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Address, Client
from redis_worker.ports import Partition, Refusals
from redis_worker.vocabulary.checks import check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import Unacceptable, WrongType
from redis_worker.vocabulary.key_pattern import Row

Command: TypeAlias = tuple[Any, ...]

# Seconds without a reply after which the server counts as gone.
_PATIENCE = 15.0


class RedisSink(Access):
    """A Sink that writes each row by one command or a few. It writes again what it is given again: at least once."""

    stores_offsets = False

    def __init__(self, redis: str | Client | Address, batch_size: int, flush_after: Duration) -> None:
        super().__init__(redis)
        self.batch_size = check_whole("batch_size", batch_size, 1)
        self.flush_after = check_seconds("flush_after", flush_after, least=0)

    @abstractmethod
    def _commands(self, row: Row) -> list[Command]:
        """Return the commands that write `row`. Raises ValueError if it cannot be written."""

    def _places(self, rows: Sequence[Row]) -> Sequence[Hashable] | None:  # noqa: ARG002
        """Return the place of each row, if a row makes those written there before it superfluous; otherwise None.

        Raises ValueError if one of them cannot be written.
        """
        return None

    def _merged(self, rows: Sequence[Row]) -> Row:
        """Return the row that has the effect of `rows`, all of one place."""
        return rows[-1]

    async def open(self) -> None:
        """Reach the server. Raises Disconnected or Refused."""
        await self._connection.ping(_PATIENCE)

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
        """Write all rows in one exchange. Raises Disconnected or Refused; see Sink."""
        refusals: dict[int, str] = {}
        prepared = self._prepared(values, refusals)
        if prepared:
            replies = await self._exchange([command for command, _ in prepared])
            for (_, indexes), reply in zip(prepared, replies, strict=True):
                if isinstance(reply, (WrongType, Unacceptable)):
                    refusals |= dict.fromkeys(indexes, str(reply))
                elif isinstance(reply, Exception):
                    raise reply
        if refusals and refused is not None:
            await refused(refusals)
        return refusals

    def _prepared(self, values: Sequence[Any], refusals: dict[int, str]) -> list[tuple[Command, list[int]]]:
        """Return the commands, each with the indexes of its values; add what is no row to `refusals`. The hot path."""
        before = len(refusals)
        rows: list[Row] = []
        indexes: list[int] = []
        for index, value in enumerate(values):
            if before and index in refusals:
                continue
            if type(value) is list:
                rows += value
                indexes += [index] * len(value)
            else:
                rows.append(value)
                indexes.append(index)
        prepared: list[tuple[Command, list[int]]] = []
        for group in self._grouped(rows, indexes, refusals):
            members = [indexes[number] for number in group]
            try:
                row = rows[group[0]] if len(group) == 1 else self._merged([rows[number] for number in group])
                prepared += [(command, members) for command in self._commands(row)]
            except ValueError as error:
                found = {indexes[number]: text for number in group if (text := self._problem(rows[number]))}
                refusals |= found or dict.fromkeys(members, str(error))
        # Of a value that is refused no row is written: it is left out from the start.
        return prepared if len(refusals) == before else self._prepared(values, refusals)

    def _grouped(self, rows: Sequence[Row], indexes: Sequence[int], refusals: dict[int, str]) -> Iterable[list[int]]:
        """Return the numbers of the rows of each place; add the indexes of those that have none to `refusals`."""
        try:
            places = self._places(rows)
        except ValueError:
            refusals |= {index: text for index, row in zip(indexes, rows, strict=True) if (text := self._problem(row))}
            return ()
        if places is None:
            return ([number] for number in range(len(rows)))
        groups: dict[Hashable, list[int]] = {}
        for number, place in enumerate(places):
            if (group := groups.get(place)) is None:
                groups[place] = [number]
            else:
                group.append(number)
        return groups.values()

    def _problem(self, row: Row) -> str | None:
        """Return the reason why `row` alone cannot be written; None without one."""
        try:
            self._places([row])
            self._commands(row)
        except ValueError as error:
            return str(error)
        return None

    async def _exchange(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Send `commands` together, and return their replies; an error reply as an exception."""
        return await self._connection.together(*commands, patience=_PATIENCE)
