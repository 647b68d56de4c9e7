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
    def _commands(self, row: Row) -> list[tuple[Any, ...]]:
        """Return the commands that write `row`. Raises ValueError if it cannot be written."""

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
        commands: list[tuple[Any, ...]] = []
        owners: list[int] = []
        for index, value in enumerate(values):
            try:
                own = [command for row in _rows(value) for command in self._commands(row)]
            except ValueError as error:
                refusals[index] = str(error)
            else:
                commands += own
                owners += [index] * len(own)
        if commands:
            for index, reply in zip(owners, await self._exchange(commands), strict=True):
                if isinstance(reply, (WrongType, Unacceptable)):
                    refusals.setdefault(index, str(reply))
                elif isinstance(reply, Exception):
                    raise reply
        if refusals and refused is not None:
            await refused(refusals)
        return refusals

    async def _exchange(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """Send `commands` together, and return their replies; an error reply as an exception."""
        return await self._connection.together(*commands, patience=_PATIENCE)


class KeyPattern:
    """A text with names of columns in braces, for example `device:{device}`."""

    def __init__(self, option: str, text: str) -> None:
        """Raises ConfigurationError if the pattern is not valid."""
        try:
            self._columns = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
        except ValueError as error:
            raise ConfigurationError(f"{option} {text!r}: {error}") from None
        if not text or not all(name.isidentifier() for name in self._columns):
            raise ConfigurationError(
                f"{option} {text!r} is a text with names of columns in braces, as in 'device:{{id}}'"
            )
        self._text = text

    def of(self, row: Row) -> str:
        """Return the text for `row`. Raises ValueError if a column is missing or empty."""
        for name in self._columns:
            if row.get(name) in {None, ""}:
                raise ValueError(f"the row has no {name!r}, which {self._text!r} needs")
        return self._text.format_map(row)


def _rows(value: Any) -> list[Row]:
    return value if type(value) is list else [value]
