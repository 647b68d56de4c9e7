"""A sink in a pool's processor and in a topic's handlers: no result before the commit, and a refused row is dead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from redis_worker import Handlers, Message, Publisher, TopicWorker, WorkerPool
from redis_worker.embedded import EmbeddedServer
from redis_worker.postgres import Lookup, UpsertSink
from tests.postgres.tables import rows, run
from tests.support import Queue, Topic, wait_until

TABLES = """
create table cities (id int generated always as identity primary key, name text unique);
create table cases (city_id int primary key references cities, cases int check (cases >= 0));
"""
CITIES = "select name, id from cities where name = any($1)"
CREATE = "insert into cities (name) select unnest($1::text[]) on conflict do nothing"


@pytest.fixture
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


async def test_a_pool_writes_rows_and_buries_refused_ones(server: EmbeddedServer, queue: Queue, database: str) -> None:
    await run(database, TABLES)
    async with (
        UpsertSink(database, "cases", key=["city_id"], flush_after=0.05) as sink,
        Lookup(CITIES, database, create=CREATE) as cities,
    ):

        async def persist(task: list[Any]) -> str:
            name, cases = task
            await sink.add({"city_id": await cities.get(name), "cases": cases})
            return "written"

        tasks = [{"id": str(n), "task": [f"city {n % 50}", n if n % 10 else -1]} for n in range(200)]
        await queue.redis.rpush(queue.keys.waiting, *map(json.dumps, tasks))
        pool = WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", persist, concurrency=64, retries=3)
        async with pool:
            await wait_until(lambda: _is(queue.redis.hlen(queue.keys.output), 200), "all results")
        assert sink.counters.flushes < 200  # rows that arrive together share one
    letters = [json.loads(letter) for letter in await queue.redis.lrange(queue.keys.dead, 0, -1)]
    assert len(letters) == 20
    assert all("violates check constraint" in letter["reason"] and letter["attempts"] == 1 for letter in letters)
    assert len(await rows(database, "select 1 from cases")) == 45


async def _is(number: Any, expected: int) -> bool:
    return await number == expected


async def test_a_batch_handler_saves_and_names_what_is_refused(
    server: EmbeddedServer, topic: Topic, database: str
) -> None:
    await run(database, TABLES, "insert into cities (name) select n::text from generate_series(1, 30) n")
    handlers = Handlers()
    async with UpsertSink(database, "cases", key=["city_id"]) as sink:

        @handlers.batch_handler(topic.name, size=20, within=0.1, retries=0)
        async def persist(messages: list[Message]) -> dict[str, str]:
            refused = await sink.save([message.data for message in messages])
            return {messages[number].id: reason for number, reason in refused.items()}

        async with Publisher(server.url) as publisher:
            await publisher.publish_many(topic.name, [{"city_id": n, "cases": n} for n in range(1, 41)])
        worker = TopicWorker(server.url)
        worker.include(handlers)
        async with worker:
            await wait_until(lambda: _is(topic.redis.llen(topic.keys.dead), 10), "dead letters")
            await wait_until(lambda: _is(_count(database), 30), "rows")
    letters = [json.loads(letter) for letter in await topic.redis.lrange(topic.keys.dead, 0, -1)]
    assert all("violates foreign key constraint" in letter["reason"] for letter in letters)


async def _count(database: str) -> int:
    return len(await rows(database, "select 1 from cases"))
