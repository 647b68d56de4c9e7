"""PostgreSQL: rows per second through an UpsertSink, beside the driver alone with the same statements."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from statistics import median
from typing import Any

import asyncpg

from benchmarks.report import Row, rated
from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.postgres import UpsertSink

TARGET = 0.8
_TABLE = """
create table cases (date date, city_id int, region_id int, cases bigint, at timestamptz,
                    primary key (date, city_id, region_id))
"""
_HEAD = "insert into cases (date, city_id, region_id, cases, at) \
select distinct on (1, 2, 3) a::date, b, c, d, e::timestamptz from"
_TAIL = "order by 1, 2, 3, position desc on conflict (date, city_id, region_id) \
do update set cases = excluded.cases, at = excluded.at"
_UNNEST = f"{_HEAD} unnest($1::text[], $2::int4[], $3::int4[], $4::int8[], $5::text[]) \
with ordinality as source (a, b, c, d, e, position) {_TAIL}"
_STAGING = "create temp table staging (a text, b int4, c int4, d int8, e text, position int8) on commit delete rows"
_MERGE = f"{_HEAD} staging {_TAIL}"

Batch = list[dict[str, Any]]
Write = Callable[[Batch, Any], Awaitable[Any]]


def postgres(batches: Sequence[tuple[int, int]], rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Write batches of each size and number, the driver and the sink in turn, `rounds` times."""
    with EmbeddedPostgres() as server:
        for size, number in batches:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                bare, sink = runner.run(_measure(server.dsn, size, number, rounds))
            progress(f"PostgreSQL, {size} rows: driver {median(bare):,.0f}/s, UpsertSink {median(sink):,.0f}/s")
            how = "COPY and merge" if size >= 5000 else "unnest"
            yield rated(f"postgres: driver alone, {how}, {size:,} rows", bare, unit=" rows")
            yield rated(f"postgres: UpsertSink, {size:,} rows a batch", sink, bare, TARGET, unit=" rows")


async def _measure(dsn: str, size: int, number: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return the rates of the driver and of the sink, in rows per second; a fifth of each batch repeats a key."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"drop table if exists cases; {_TABLE}; {_STAGING}")
    rows = [_batch(size) for _ in range(number)]
    # What the driver writes lies ready: neither reading the rows nor checking them is in its time.
    ready = [_ready(batch, size) for batch in rows]
    rates: tuple[list[float], list[float]] = ([], [])

    async def copy(_: Batch, columns: Any) -> None:
        async with connection.transaction():
            await connection.copy_records_to_table("staging", records=columns)
            await connection.execute(_MERGE)

    async with UpsertSink(dsn, "cases", key=["date", "city_id", "region_id"]) as sink:
        writers: tuple[Write, Write] = (
            copy if size >= 5000 else lambda _, columns: connection.execute(_UNNEST, *columns),
            lambda batch, _: sink.write(batch),
        )
        spare_garbage_collection()  # as in a worker
        for turn in range(rounds + 1):
            seconds = [0.0, 0.0]
            for place, (batch, columns) in enumerate(zip(rows, ready, strict=True)):
                # One batch each, in turn, so that a slow moment of the machine affects both.
                for which in (0, 1) if place % 2 else (1, 0):
                    started = time.perf_counter()
                    await writers[which](batch, columns)
                    seconds[which] += time.perf_counter() - started
            if turn:  # the first fills the table
                for found, spent in zip(rates, seconds, strict=True):
                    found.append(size * number / spent)
    await connection.close()
    return rates


def _batch(size: int) -> Batch:
    rows = [
        {
            "date": f"2024-{random.randrange(1, 13):02}-{random.randrange(1, 29):02}",
            "city_id": random.randrange(300),
            "region_id": random.randrange(10),
            "cases": random.randrange(100_000),
            "at": f"2024-12-01T{random.randrange(24):02}:00:00+00:00",
        }
        for _ in range(size - size // 5)
    ]
    return [*rows, *random.choices(rows, k=size // 5)]


def _ready(batch: Batch, size: int) -> Any:
    columns = list(zip(*(row.values() for row in batch), strict=True))
    return list(zip(*columns, range(size), strict=True)) if size >= 5000 else columns
