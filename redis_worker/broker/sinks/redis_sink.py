"""The base of the sinks in Redis: rows become commands, which are sent together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from string import Formatter
from typing import Any, TypeAlias

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Address, Client
from redis_worker.ports import Partition, Refusals
from redis_worker.vocabulary.checks import check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError, Unacceptable, WrongType

Row: TypeAlias = Mapping[str, Any]
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

    def _place(self, row: Row) -> str | None:  # noqa: ARG002
        """Return the place of `row` if it makes the rows written there before it superfluous; otherwise None.

        Raises ValueError if it cannot be written.
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
        """Return the commands, each with the indexes of its values; add what is no row to `refusals`."""
        groups: dict[str, list[tuple[int, Row]]] = {}
        before = len(refusals)
        for index, value in enumerate(values):
            if index in refusals:
                continue
            for row in value if type(value) is list else (value,):
                try:
                    groups.setdefault(self._place(row) or f"\0{len(groups)}", []).append((index, row))
                except ValueError as error:
                    refusals[index] = str(error)
        prepared: list[tuple[Command, list[int]]] = []
        for group in groups.values():
            indexes = [index for index, _ in group]
            try:
                row = group[0][1] if len(group) == 1 else self._merged([row for _, row in group])
                prepared += ((command, indexes) for command in self._commands(row))
            except ValueError as error:
                refusals |= self._unwritable(group) or dict.fromkeys(indexes, str(error))
        # Of a value that is refused no row is written: it is left out from the start.
        return prepared if len(refusals) == before else self._prepared(values, refusals)

    def _unwritable(self, group: Sequence[tuple[int, Row]]) -> dict[int, str]:
        found: dict[int, str] = {}
        for index, row in group:
            try:
                self._commands(row)
            except ValueError as error:
                found[index] = str(error)
        return found

    async def _exchange(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Send `commands` together, and return their replies; an error reply as an exception."""
        return await self._connection.together(*commands, patience=_PATIENCE)


class KeyPattern:
    """A text with names of columns in braces, for example `device:{device}`."""

    def __init__(self, option: str, text: str) -> None:
        """Raises ConfigurationError if the pattern is not valid."""
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(f"{option} {text!r}: {error}") from None
        if not text or any(not name.isidentifier() or form or how for _, name, form, how in parsed if name is not None):
            raise ConfigurationError(
                f"{option} {text!r} is a text with names of columns in braces, as in 'device:{{id}}'"
            )
        self._text = text
        self._fields: list[tuple[str, str]] = []
        """Columns, each after the text before it."""
        self._rest = ""
        for literal, name, _, _ in parsed:
            self._rest += literal
            if name is not None:
                self._fields.append((self._rest, name))
                self._rest = ""

    def of(self, row: Row) -> str:
        """Return the text for `row`. Raises ValueError if a column is missing or empty."""
        text = ""
        for literal, name in self._fields:
            value = row.get(name)
            if value is None or value == "":
                raise ValueError(f"the row has no {name!r}, which {self._text!r} needs")
            text += f"{literal}{value}"
        return text + self._rest
