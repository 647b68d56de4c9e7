"""Offsets commit with the rows, once, and only for the owner of the partition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from redis_worker import Disconnected
from redis_worker.ports import PartitionsLost
from redis_worker.postgres import UpsertSink
from redis_worker.postgres.flush import COPY_FROM
from tests.postgres.tables import connected, rows, run, value
from tests.support import wait_until

# Each insert and each update of a row is counted.
TABLES = """
create table t (k int primary key, v int);
create table applied (k int, v int);
create function note() returns trigger language plpgsql as
    $$ begin insert into applied values (new.k, new.v); return null; end $$;
create trigger note after insert or update on t for each row execute function note();
"""
P0, P1 = ("events", 0), ("events", 1)


def batch(*keys: int) -> list[dict[str, int]]:
    return [{"k": k, "v": k} for k in keys]


@pytest.fixture
async def consumer(database: str) -> AsyncIterator[Callable[[], UpsertSink]]:
    await run(database, TABLES)
    sinks: list[UpsertSink] = []

    def make() -> UpsertSink:
        sinks.append(UpsertSink(database, "t", key=["k"], stores_offsets=True))
        return sinks[-1]

    yield make
    for sink in sinks:
        await sink.close()


async def test_a_successor_starts_from_what_is_stored_and_fences_its_predecessor(
    database: str, consumer: Callable[[], UpsertSink]
) -> None:
    first, second = consumer(), consumer()
    assert await first.take("group", "a", [P0, P1]) == {}
    assert await first.write(batch(1, 2), offsets={P0: 2, P1: 7}) == {}
    assert await second.take("group", "b", [P1]) == {P1: 7}
    with pytest.raises(PartitionsLost, match=r"^another consumer has taken events\[1\]$") as caught:
        await first.write(batch(3, 4), offsets={P0: 4, P1: 9})
    assert list(caught.value.partitions) == [P1]
    assert await first.write(batch(3), offsets={P0: 3}) == {}
    assert await second.write([], offsets={P1: 8}) == {}
    assert await rows(database, "select k from t order by k") == [(1,), (2,), (3,)]
    assert await second.take("group", "c", [P0, P1]) == {P0: 3, P1: 8}
    assert await second.take("another group", "c", [P0, P1]) == {}


async def test_what_was_never_taken_is_not_owned(consumer: Callable[[], UpsertSink]) -> None:
    sink = consumer()
    with pytest.raises(PartitionsLost):
        await sink.write(batch(1), offsets={P0: 1})


@pytest.mark.parametrize("size", [3, COPY_FROM], ids=["unnest", "copy"])
async def test_a_write_repeated_after_a_lost_reply_writes_nothing_twice(
    database: str, consumer: Callable[[], UpsertSink], size: int
) -> None:
    sink = consumer()
    await sink.take("group", "a", [P0, P1])
    for _ in range(2):
        assert await sink.write(batch(*range(size)), offsets={P0: size, P1: 1}) == {}
    assert await value(database, "select count(*) from applied") == size
    # An offset that does not move is no sign of a repetition.
    assert await sink.write(batch(5), offsets={P0: size, P1: 2}) == {}
    assert await value(database, "select count(*) from applied") == size + 1


async def test_a_successor_waits_for_a_transaction_under_way(consumer: Callable[[], UpsertSink], database: str) -> None:
    first, second = consumer(), consumer()
    await first.take("group", "a", [P0])
    inside, go = asyncio.Event(), asyncio.Event()

    async def refused(_: Any) -> None:
        inside.set()
        await go.wait()

    writing = asyncio.create_task(first.write([*batch(1), 5], offsets={P0: 2}, refused=refused))
    await inside.wait()
    taking = asyncio.create_task(second.take("group", "b", [P0]))
    await wait_until(lambda: value(database, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"))
    assert not taking.done()
    go.set()
    assert list(await writing) == [1]
    assert await taking == {P0: 2}


async def test_each_event_is_applied_once_whatever_is_killed(database: str, consumer: Callable[[], UpsertSink]) -> None:
    """Two consumers in turn own a partition; connections are killed, and a consumer is replaced without notice."""
    log = list(range(60))

    async def consume(owner: str) -> None:
        """Read from the stored offset to the end, or until a successor takes over."""
        sink = consumer()
        position = (await patiently(lambda: sink.take("group", owner, [P0]))).get(P0, 0)
        while position < len(log):
            values = batch(*log[position : position + 4])
            if position % 8 == 0:
                values.append({"k": -1, "v": 1, "poison": True})  # type: ignore[dict-item]
                values[-1].pop("v")
            offsets = {P0: min(len(log), position + 4)}
            try:
                await patiently(lambda values=values, offsets=offsets: sink.write(values, offsets=offsets))  # type: ignore[misc]
            except PartitionsLost:
                return
            position = offsets[P0]

    async with connected(database) as other:
        consumers = [asyncio.create_task(consume("first"))]
        await wait_until(lambda: value(database, "select to_regclass('redis_worker_offsets') is not null"))
        kill = (
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'redis_worker%'"
        )
        killed_at: set[int] = set()
        while not all(task.done() for task in consumers):
            stored = await other.fetchval("select max(next_offset) from redis_worker_offsets") or 0
            # Where each kill finds some progress, the end comes on a slow machine too.
            if stored not in killed_at:
                killed_at.add(stored)
                await other.fetchval(kill)
                if len(consumers) < 4:
                    consumers.append(asyncio.create_task(consume(f"successor {len(consumers)}")))
            await asyncio.sleep(0.005)
        await asyncio.gather(*consumers)
    assert await rows(database, "select k, count(*) from applied group by k order by k") == [(k, 1) for k in log]


async def patiently(operation: Callable[[], Any]) -> Mapping[Any, Any]:
    while True:
        try:
            return await operation()  # type: ignore[no-any-return]
        except Disconnected:
            await asyncio.sleep(0.01)
