"""A database that restarts, kills its backends or hangs: nothing is lost, and nothing is written late."""

from __future__ import annotations

import asyncio
import signal

import pytest

from redis_worker import Disconnected
from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.postgres import UpsertSink
from redis_worker.postgres.flush import COPY_FROM
from tests.postgres.tables import connected, rows, run, value
from tests.support import wait_until

TABLE = "create table t (k int primary key, v int)"
WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
KILL = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'redis_worker%'"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL], ids=["restart", "crash"])
async def test_a_restart_in_the_middle_loses_no_row(own_postgres: EmbeddedPostgres, by: signal.Signals) -> None:
    await run(own_postgres.dsn, TABLE)
    saved: list[int] = []
    async with UpsertSink(own_postgres.dsn, "t", key=["k"], flush_after=0.01) as sink:

        async def add(first: int) -> None:
            for k in range(first, first + 60):
                await sink.add({"k": k, "v": k})
                saved.append(k)

        adding = [asyncio.create_task(add(100 * number)) for number in range(5)]
        await wait_until(lambda: len(saved) > 20)
        await asyncio.to_thread(own_postgres.restart, by)
        await asyncio.gather(*adding)
        assert sink.counters.failed >= 1
    assert {k for (k,) in await rows(own_postgres.dsn, "select k from t")} == set(saved)
    assert len(saved) == 300


@pytest.mark.parametrize("size", [40, COPY_FROM], ids=["unnest", "copy"])
async def test_killed_backends_lose_no_row(database: str, size: int) -> None:
    await run(database, TABLE)
    written = 0
    async with UpsertSink(database, "t", key=["k"]) as sink, connected(database) as other:

        async def save() -> None:
            nonlocal written
            for turn in range(8):
                assert await sink.save([{"k": turn * size + n, "v": turn} for n in range(size)]) == {}
                written += size

        saving = asyncio.create_task(save())
        kills = 0
        while not saving.done():
            # At most once for each batch: every failure in a row doubles the pause.
            if kills <= sink.counters.flushes < 6:
                kills += await other.fetchval(KILL)
            await asyncio.sleep(0.005)
        await saving
    assert kills
    assert written == 8 * size == await value(database, "select count(*) from t")


async def test_a_statement_of_a_lost_connection_never_lands_after_its_repetition(database: str) -> None:
    await run(database, TABLE, "insert into t values (1, 0)")
    async with UpsertSink(database, "t", key=["k"]) as sink, connected(database) as other, other.transaction():
        await other.execute("select * from t for update")
        writing = asyncio.create_task(sink.write([{"k": 1, "v": 1}]))
        await wait_until(lambda: value(database, WAITING))
        writing.cancel()  # the connection is cut; its backend waits on
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await sink.write([{"k": 2, "v": 2}]) == {}
        assert not await value(database, WAITING)
    assert dict(await rows(database, "select k, v from t")) == {1: 0, 2: 2}


async def test_a_database_that_does_not_answer_is_disconnected(database: str) -> None:
    await run(database, TABLE, "insert into t values (1, 0)")
    async with UpsertSink(database, "t", key=["k"], timeout=1) as sink, connected(database) as other:
        async with other.transaction():
            await other.execute("select * from t for update")
            with pytest.raises(Disconnected, match=r"^PostgreSQL at 127\.0\.0\.1:\d+/\w+ does not answer in time$"):
                await sink.write([{"k": 1, "v": 1}])
        assert await sink.save([{"k": 1, "v": 1}]) == {}
        assert sink.counters.failed >= 1


async def test_a_task_cancelled_in_an_outage_leaves_nothing_that_waits(
    own_postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    await run(own_postgres.dsn, TABLE)
    sink = UpsertSink(own_postgres.dsn, "t", key=["k"], flush_after=0)
    await sink.add({"k": 1, "v": 1})
    own_postgres.stop()
    adding = asyncio.create_task(sink.add({"k": 2, "v": 2}))
    await wait_until(lambda: caplog.records, "the outage to be noticed")
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    await sink.close()
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == ["PostgreSQL is away"]
    assert own_postgres.dsn.split(":")[2].split("@")[0] not in caplog.text


async def test_a_table_that_is_mended_can_be_used_again(database: str) -> None:
    await run(database, TABLE)
    async with UpsertSink(database, "t", key=["k"]) as sink:
        await sink.write([{"k": 1, "v": 1}])
        await run(database, "alter table t alter v type text using v::text, add more int")
        refused = await sink.save([{"k": 1, "v": 2, "more": 5}])
        assert refused == {} or "text" in refused[0]
        await sink.open()
        assert await sink.save([{"k": 1, "v": "2", "more": 5}]) == {}
    assert await rows(database, "select * from t") == [(1, "2", 5)]
