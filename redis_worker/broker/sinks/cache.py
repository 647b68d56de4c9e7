"""The latest rows in Redis, each under a key of its own, which expires."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, get_args

from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.sinks.redis_sink import Command, RedisSink
from redis_worker.vocabulary.checks import check_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.key_pattern import KeyPattern, Row
from redis_worker.vocabulary.payload import dumps

Form = Literal["hash", "json"]


class CacheSink(RedisSink):
    """A cache of rows: each replaces the one of the same key.

        CacheSink("redis://localhost", "device:{device}", ttl="1h")

    Rows of one key that are written together are merged first.
    """

    def __init__(
        self,
        redis: str | Client | Address,
        key: str,
        *,
        ttl: Duration | None = None,
        form: Form = "hash",
        batch_size: int = 500,
        flush_after: Duration = 0.05,
    ) -> None:
        """`key` has names of columns in braces; `ttl`: how long a row stays, for ever without it.

        `form` "hash": a hash of the columns, texts as they are and other values as JSON. A column that is None is
        removed, and one that the row lacks stays as it was. "json": a string. Raises ConfigurationError.
        """
        super().__init__(redis, batch_size, flush_after)
        self._key = KeyPattern("key", key)
        self._ttl = None if ttl is None else max(1, round(1000 * check_seconds("ttl", ttl, above=0)))
        if form not in get_args(Form):
            raise ConfigurationError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
        self._form = form

    def _places(self, rows: Sequence[Row]) -> Sequence[Hashable]:
        return self._key.places(rows)

    def _merged(self, rows: Sequence[Row]) -> Row:
        if self._form == "json":
            return rows[-1]
        merged: dict[str, Any] = {}
        for row in rows:
            merged.update(row)
        return merged

    def _commands(self, row: Row) -> list[Command]:
        key = self._key.of(row)
        if self._form == "json":
            expires = () if self._ttl is None else ("PX", self._ttl)
            return [("SET", key, dumps(dict(row)), *expires)]
        fields = [part for name, value in row.items() if value is not None for part in (name, _field(value))]
        if not fields:
            raise ValueError("all columns of the row are empty")
        empty = [name for name, value in row.items() if value is None]
        commands: list[Command] = [("HSET", key, *fields)]
        if empty:
            commands.append(("HDEL", key, *empty))
        if self._ttl is not None:
            commands.append(("PEXPIRE", key, self._ttl))
        return commands


def _field(value: Any) -> str | bytes:
    return value if isinstance(value, str) else dumps(value)
