"""Names to ids: a cache in front of a query."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from typing import Any, Self
from weakref import WeakKeyDictionary

from redis_worker.postgres.database import Database
from redis_worker.postgres.errors import Unfit
from redis_worker.postgres.gathering import Gathering
from redis_worker.vocabulary.checks import check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration

# The most names in one query of `get`.
_MOST = 10_000


class Lookup:
    """A cache of ids by name, which asks the database once per batch for the names that it does not have.

        cities = Lookup("select name, id from cities where name = any($1)", dsn,
                        create="insert into cities (name) select unnest($1::text[]) on conflict do nothing")

    Unknown names are not cached: the next batch asks for them again. While the database is away, calls wait.
    """

    def __init__(
        self, query: str, dsn: str, *, ttl: Duration = 600, max_size: int = 10_000, create: str | None = None,
        timeout: Duration = 60,
    ) -> None:  # fmt: skip
        """Raises ConfigurationError.

        `query` returns pairs of name and id; its parameter $1 is the array of names. `create` is a statement that
        inserts the names in $1; the query is asked again after it. Of more than `max_size` names the least recently
        used are dropped, and each after `ttl`.
        """
        self._query = query
        self._create = create
        self._ttl = check_seconds("ttl", ttl, above=0)
        self._max_size = check_whole("max_size", max_size, 1)
        self._database = Database(dsn, timeout)
        self._cache: dict[Hashable, tuple[Any, float]] = {}
        """Name to id and end of validity, the least recently used first."""
        self._gatherings: WeakKeyDictionary[asyncio.AbstractEventLoop, Gathering[Any, Any]] = WeakKeyDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the cache stays."""
        await self._database.close()

    async def get(self, name: Hashable) -> Any:
        """Return the id of a name, None if it has none. Tasks that call it at the same time share a query.

        Raises Refused if the query or the statement cannot be used.
        """
        if (found := self._cached(name)) is not None:
            return found
        loop = asyncio.get_running_loop()
        gathering = self._gatherings.get(loop)
        if gathering is None:
            gathering = self._gatherings[loop] = Gathering(self._answers, _MOST, 0)
        return await gathering.submit(name)

    async def get_many(self, names: Iterable[Hashable]) -> dict[Any, Any]:
        """Return the ids of names, with at most one query; names without an id are left out. Raises Refused."""
        wanted = dict.fromkeys(names)
        ids = {name: found for name in wanted if (found := self._cached(name)) is not None}
        if missing := [name for name in wanted if name not in ids]:
            ids |= await self._database.patiently(partial(self._read, missing))
        return ids

    async def _answers(self, names: Sequence[Hashable]) -> Sequence[Any]:
        ids = await self.get_many(names)
        return [ids.get(name) for name in names]

    def _cached(self, name: Hashable) -> Any:
        entry = self._cache.pop(name, None)
        if entry is None or entry[1] < time.monotonic():
            return None
        self._cache[name] = entry
        return entry[0]

    async def _read(self, names: Sequence[Hashable]) -> dict[Any, Any]:
        """Return the ids of names from the database, and cache them; names that it cannot read have none."""
        try:
            ids = await self._ask(names)
        except Unfit:
            if len(names) == 1:
                return {}
            middle = len(names) // 2
            return await self._read(names[:middle]) | await self._read(names[middle:])
        until = time.monotonic() + self._ttl
        self._cache |= {name: (id, until) for name, id in ids.items()}
        for name in list(self._cache)[: max(0, len(self._cache) - self._max_size)]:
            del self._cache[name]
        return ids

    async def _ask(self, names: Sequence[Hashable]) -> dict[Any, Any]:
        async with self._database.session.use() as connection:
            ids: dict[Any, Any] = dict(await connection.fetch(self._query, names))
            unknown = [name for name in names if name not in ids]
            if unknown and self._create is not None:
                await connection.execute(self._create, unknown)
                ids |= dict(await connection.fetch(self._query, unknown))
        return ids
