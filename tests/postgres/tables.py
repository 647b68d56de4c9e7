"""Tables of tests: made by one statement, read as a dictionary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def run(dsn: str, *scripts: str) -> None:
    """Run statements."""
    async with connected(dsn) as connection:
        for script in scripts:
            await connection.execute(script)


async def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    async with connected(dsn) as connection:
        return [tuple(record) for record in await connection.fetch(query)]


async def value(dsn: str, query: str, *arguments: Sequence[Any]) -> Any:
    """The only value of a query."""
    async with connected(dsn) as connection:
        return await connection.fetchval(query, *arguments)
