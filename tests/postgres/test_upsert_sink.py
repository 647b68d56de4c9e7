"""UpsertSink writes what a dictionary would hold, in one statement a batch."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import secrets
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.postgres import RowRefused, UpsertSink
from redis_worker.postgres.flush import COPY_FROM
from tests.postgres.tables import connected, rows, run, value
from tests.support import wait_until

TABLE = "create table t (k int primary key, v int, version int)"
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9), st.integers(0, 9) | st.none()))
# Batches, each of one of three consumers.
WRITES = st.lists(st.tuples(st.integers(0, 2), ROWS), max_size=8)


def as_row(k: int, v: int, version: int | None) -> dict[str, int | None]:
    return {"k": k, "v": v, "version": version}


@given(WRITES, st.sampled_from(["last", "newest", "first"]))
@settings(max_examples=15)
def test_batches_of_several_consumers_leave_what_a_dictionary_holds(
    postgres: EmbeddedPostgres, writes: list[tuple[int, list[tuple[int, int, int | None]]]], rule: str
) -> None:
    """Negative values are poison: refused, and they hide no earlier row of their key."""
    expected: dict[int, tuple[int, int | None]] = {}

    async def scenario() -> None:
        await run(postgres.dsn, "drop table if exists t", TABLE, "alter table t add check (v >= 0)")
        options: dict[str, Any] = {"last": {}, "newest": {"version": "version"}, "first": {"update": []}}[rule]
        sinks = [UpsertSink(postgres.dsn, "t", key=["k"], **options) for _ in range(3)]
        for consumer, batch in writes:
            refused = await sinks[consumer].write([as_row(*row) for row in batch])
            assert all(batch[number][1] < 0 for number in refused)
            for number, (k, v, version) in enumerate(batch):
                if v < 0:
                    # A row that another one of its batch replaces is not judged.
                    assert number in refused or any(row[0] == k and row[1] >= 0 for row in batch)
                    continue
                newest = expected[k][1] if rule == "newest" and k in expected else None
                if newest is not None and (version is None or version < newest):
                    continue
                if rule != "first" or k not in expected:
                    expected[k] = (v, version)
        for sink in sinks:
            await sink.close()

    asyncio.run(scenario())
    stored = asyncio.run(rows(postgres.dsn, "select k, v, version from t"))
    assert {k: (v, version) for k, v, version in stored} == expected


@pytest.mark.parametrize("size", [COPY_FROM - 1, COPY_FROM])
async def test_the_later_of_two_rows_stands_by_either_statement(database: str, size: int) -> None:
    await run(database, TABLE)
    batch = [as_row(n % (size - 10), n, None) for n in range(size)]
    async with UpsertSink(database, "t", key=["k"]) as sink:
        for _ in range(2):
            assert await sink.write(batch) == {}
        assert sink.counters.written == 2 * (size - 10)
        assert (sink.counters.values, sink.counters.flushes) == (2 * size, 2)
        assert await sink.write([*batch, {"k": None, "v": 0, "version": 0}]) == {
            size: 'null value in column "k" of relation "t" violates not-null constraint: '
            "Failing row contains (null, 0, 0)."
        }
    assert dict(await rows(database, "select k, v from t")) == {row["k"]: row["v"] for row in batch}


async def test_the_order_of_a_batch_is_not_that_of_its_storage(database: str) -> None:
    """A row of the staging table may lie before one that came earlier, where a page had room for it."""
    await run(database, "create table t (k int primary key, v text)")
    batch = [{"k": n % 1000, "v": f"{n} " + secrets.token_hex(random.randrange(900))} for n in range(COPY_FROM)]
    async with UpsertSink(database, "t", key=["k"]) as sink:
        assert await sink.write(batch) == {}
    assert dict(await rows(database, "select k, v from t")) == {row["k"]: row["v"] for row in batch}


async def test_concurrent_writers_with_versions_leave_the_highest(database: str) -> None:
    """Each key is written by all writers, in other orders: no deadlock, no row lost, the highest version stands."""
    await run(database, TABLE)
    sinks = [UpsertSink(database, "t", key=["k"], version="version") for _ in range(4)]

    async def write(number: int) -> None:
        for turn in range(20):
            batch = [
                as_row(k, version, version) for k in range(50) for version in ((k * 7 + turn * 13 + number) % 101,)
            ]
            assert await sinks[number].write(batch if number % 2 else batch[::-1]) == {}

    await asyncio.gather(*map(write, range(4)))
    for sink in sinks:
        await sink.close()
    highest = {
        k: max((k * 7 + turn * 13 + number) % 101 for turn in range(20) for number in range(4)) for k in range(50)
    }
    assert dict(await rows(database, "select k, v from t")) == highest


async def test_a_deadlock_is_tried_again(database: str) -> None:
    """Another program locks the same rows in another order, and waits for the sink while the sink waits for it."""
    await run(database, TABLE, "insert into t select n, 0, 0 from generate_series(1, 9) n")
    async with UpsertSink(database, "t", key=["k"]) as sink, connected(database) as other:
        # The sink is the one that PostgreSQL ends: it looks for deadlocks earlier than the other.
        await other.execute("set deadlock_timeout = '1h'")
        async with other.transaction():
            await other.execute("update t set v = 1 where k = 9")
            writing = asyncio.create_task(sink.write([as_row(k, 2, 2) for k in (9, 1)]))
            waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            await wait_until(lambda: value(database, waits))
            await other.execute("update t set v = 1 where k = 1")
        assert await writing == {}
        assert sink.counters.retried >= 1
    assert dict(await rows(database, "select k, v from t where k in (1, 9)")) == {1: 2, 9: 2}


async def test_a_value_of_several_rows_is_written_whole_or_not_at_all(database: str) -> None:
    await run(database, TABLE)
    good, bad = as_row(1, 1, 1), {"k": None, "v": 1, "version": 1}
    seen: list[Any] = []

    async def refused(refusals: Any) -> None:
        # Before the commit: what dead letters cover must not be written without them.
        seen.append((list(refusals), await rows(database, "select k from t")))

    async with UpsertSink(database, "t", key=["k"]) as sink:
        values = [[good, as_row(2, 2, 2)], None, [as_row(3, 3, 3), bad], 5, as_row(4, 4, 4), []]
        assert list(await sink.write(values, refused=refused)) == [2, 3]
        assert seen == [([2, 3], [])]
        assert await sink.write([]) == {}
    assert await rows(database, "select k from t order by k") == [(1,), (2,), (4,)]


async def test_a_value_of_very_many_rows_is_refused_for_its_own_fault_only(database: str) -> None:
    await run(database, TABLE)
    many = [as_row(k, 1, 1) for k in range(COPY_FROM)]
    bad = [*(as_row(-k, 1, 1) for k in range(1, COPY_FROM)), as_row(COPY_FROM, 2**40, 1)]
    async with UpsertSink(database, "t", key=["k"]) as sink:
        refused = await sink.write([many, bad, {"k": None, "v": 1, "version": 1}])
    assert list(refused) == [1, 2]
    assert "'v' is integer" in refused[1]
    assert await value(database, "select count(*) from t") == COPY_FROM


async def test_an_error_of_the_function_for_dead_letters_rolls_all_back(database: str) -> None:
    await run(database, TABLE)

    async def refused(_: Any) -> None:
        raise ConnectionResetError("no letter")

    async with UpsertSink(database, "t", key=["k"]) as sink:
        with pytest.raises(ConnectionResetError, match="no letter"):
            await sink.write([as_row(1, 1, 1), 5], refused=refused)
        assert await rows(database, "select k from t") == []
        assert await sink.write([as_row(1, 1, 1)]) == {}


async def test_a_deferred_constraint_refuses_its_row_alone(database: str) -> None:
    await run(
        database,
        "create table parents (id int primary key)",
        "insert into parents values (1)",
        "create table t (k int primary key, parent int references parents deferrable initially deferred)",
    )
    async with UpsertSink(database, "t", key=["k"]) as sink:
        refused = await sink.write([{"k": k, "parent": 1 + (k == 3)} for k in range(6)])
    assert list(refused) == [3]
    assert "Key (parent)=(2) is not present" in refused[3]
    assert len(await rows(database, "select k from t")) == 5


async def test_rows_added_by_many_tasks_share_statements(database: str) -> None:
    await run(database, TABLE)
    async with UpsertSink(database, "t", key=["k"], batch_size=100, flush_after=0.2) as sink:
        results = await asyncio.gather(
            *(sink.add(as_row(k, k, k) if k % 50 else {"k": k}) for k in range(1000)), return_exceptions=True
        )
        assert sink.counters.flushes <= 11
        assert Counter(map(type, results)) == {type(None): 980, RowRefused: 20}
        assert "no value for the column 'v'" in str(results[0])
    assert await value(database, "select count(*) from t") == 980


async def test_the_end_of_the_block_writes_what_was_added(database: str) -> None:
    await run(database, TABLE)
    async with UpsertSink(database, "t", key=["k"], flush_after="1h") as sink:
        adding = [asyncio.create_task(sink.add(as_row(k, k, k))) for k in range(3)]
        await asyncio.sleep(0)
        adding.pop().cancel()
    await asyncio.gather(*adding)
    assert await rows(database, "select k from t order by k") == [(0,), (1,)]


async def test_nulls_of_a_nullable_key_are_refused_unless_the_index_takes_them_for_equal(database: str) -> None:
    await run(database, "create table t (k int, v int, unique (k))")
    async with UpsertSink(database, "t", key=["k"]) as sink:
        assert await sink.write([{"k": None, "v": 1}, {"k": 1, "v": 1}]) == {
            0: "the column 'k' belongs to the key, and cannot be NULL"
        }
        await run(database, "drop table t", "create table t (k int, v int, unique nulls not distinct (k))")
        await sink.open()
        for _ in range(2):
            assert await sink.write([{"k": None, "v": 1}, {"k": None, "v": 2}]) == {}
    assert await rows(database, "select k, v from t") == [(None, 2)]


def test_a_sink_serves_one_event_loop_after_the_other_and_closes_with_each(postgres: EmbeddedPostgres) -> None:
    asyncio.run(run(postgres.dsn, "drop table if exists t", TABLE))
    sink = UpsertSink(postgres.dsn, "t", key=["k"], flush_after=0)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(sink.add(as_row(0, 0, 0)))
    loop.close()  # without a chance to close the connection
    for number in range(1, 3):
        asyncio.run(sink.add(as_row(number, 0, 0)))
    assert len(asyncio.run(rows(postgres.dsn, "select k from t"))) == 3
    asyncio.run(wait_until(lambda: _none(postgres.dsn)))


def test_a_child_process_has_a_connection_of_its_own(postgres: EmbeddedPostgres) -> None:
    asyncio.run(run(postgres.dsn, "drop table if exists t", TABLE))
    sink = UpsertSink(postgres.dsn, "t", key=["k"], flush_after=0)

    async def add_in_both() -> None:
        await sink.add(as_row(0, 0, 0))
        child = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(sink.add(as_row(1, 1, 1))))
        child.start()
        await wait_until(lambda: child.exitcode is not None)
        assert child.exitcode == 0
        child.close()
        await sink.add(as_row(2, 2, 2))

    asyncio.run(add_in_both())
    assert len(asyncio.run(rows(postgres.dsn, "select k from t"))) == 3
    asyncio.run(wait_until(lambda: _none(postgres.dsn)))


async def _none(dsn: str) -> bool:
    return not await value(dsn, "select count(*) from pg_stat_activity where application_name like 'redis_worker%'")
