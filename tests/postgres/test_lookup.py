"""Lookup: one query per batch for what the cache does not have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_worker import Refused
from redis_worker.postgres import Lookup
from tests.postgres.tables import rows, run, value

# Each call of the function moves the sequence.
TABLES = """
create table cities (id int generated always as identity primary key, name text unique check (name <> 'nowhere'));
insert into cities (name) values ('Berlin'), ('Paris');
create sequence calls;
create function find(names text[]) returns table (name text, id int) language plpgsql as
    $$ begin perform nextval('calls'); return query select c.name, c.id from cities c where c.name = any(names); end $$;
"""
QUERY = "select name, id from find($1::text[])"
CREATE = "insert into cities (name) select unnest($1::text[]) on conflict do nothing"


@pytest.fixture
async def cities(database: str) -> str:
    await run(database, TABLES)
    return database


async def calls(database: str) -> int:
    """Queries since the last call."""
    number: int = await value(database, "select case when is_called then last_value else 0 end from calls")
    await run(database, "alter sequence calls restart")
    return number


async def test_a_batch_asks_once_and_the_next_not_at_all(cities: str) -> None:
    async with Lookup(QUERY, cities) as lookup:
        for expected in (1, 0):
            assert await lookup.get_many(["Berlin", "Paris", "Berlin"]) == {"Berlin": 1, "Paris": 2}
            assert await calls(cities) == expected
        assert await lookup.get_many(["Paris", "Rome"]) == {"Paris": 2}
        assert await lookup.get_many([]) == {}
        await run(cities, "insert into cities (name) values ('Rome')")
        assert await lookup.get("Rome") == 3  # unknown names are not remembered
        assert await calls(cities) == 2


async def test_tasks_that_ask_at_once_share_a_query(cities: str) -> None:
    async with Lookup(QUERY, cities) as lookup:
        names = ["Berlin", "Paris", "Rome"] * 50
        assert await asyncio.gather(*map(lookup.get, names)) == [1, 2, None] * 50
        assert await calls(cities) == 1


async def test_missing_names_are_created_once_by_whoever_comes_first(cities: str) -> None:
    lookups = [Lookup(QUERY, cities, create=CREATE) for _ in range(3)]
    found = await asyncio.gather(*(lookup.get_many([f"city {n}" for n in range(200)]) for lookup in lookups))
    assert found[0] == found[1] == found[2] == dict(await rows(cities, "select name, id from cities where id > 2"))
    for lookup in lookups:
        await lookup.close()


async def test_a_name_that_the_database_refuses_is_unknown_and_harms_no_other(cities: str) -> None:
    bad: list[Any] = ["a\0", "nowhere", 5, None]
    async with Lookup(QUERY, cities, create=CREATE) as lookup:
        assert await asyncio.gather(*map(lookup.get, ["Berlin", *bad, "Paris"])) == [1, None, None, None, None, 2]


async def test_names_are_dropped_by_age_and_by_number(cities: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("redis_worker.postgres.lookup.time.monotonic", lambda: now)
    async with Lookup(QUERY, cities, create=CREATE, ttl="10m", max_size=3) as lookup:
        await lookup.get_many(["Berlin", "Paris", "Rome"])
        await lookup.get_many(["Berlin"])
        await lookup.get_many(["Oslo"])  # in the place of Paris, which was not used for the longest time
        await calls(cities)
        await lookup.get_many(["Berlin", "Rome", "Oslo"])
        assert await calls(cities) == 0
        assert len(await lookup.get_many([f"city {n}" for n in range(9)])) == 9
        await lookup.get_many(["city 8"])
        await calls(cities)
        now = 601.0
        await lookup.get_many(["city 8"])
        assert await calls(cities) == 1


async def test_a_query_that_cannot_be_used_is_refused(cities: str) -> None:
    async with Lookup("select name, id from towns where name = any($1)", cities) as lookup:
        with pytest.raises(Refused, match='relation "towns" does not exist'):
            await lookup.get("Berlin")
