"""A Kafka worker with a sink: batches, outages, refused rows, and offsets that are stored with the rows."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from redis_worker import KafkaMessage, Unreachable
from redis_worker.mock_kafka import MockKafka
from tests.kafka.kafka_support import QUICK, KafkaTopic, MemorySink, reasons
from tests.support import wait_until


@pytest.fixture
def topic(mock_kafka: MockKafka) -> KafkaTopic:
    return KafkaTopic.on(mock_kafka)


async def to_row(message: KafkaMessage) -> dict[str, Any]:
    return {"n": message.data}


async def test_rows_are_written_in_batches_before_the_commit(topic: KafkaTopic) -> None:
    sink = MemorySink(batch_size=50)
    topic.produce(range(1000))
    async with topic.worker(to_row, sink=sink, concurrency=64):
        await wait_until(lambda: len(sink.rows) == 1000)
        await wait_until(lambda: sum(topic.committed()) == 1000)
    assert sorted(row["n"] for row in sink.rows) == list(range(1000))
    assert max(sink.batches) == 50
    assert len(sink.batches) < 500


@pytest.mark.parametrize("stores_offsets", [False, True])
async def test_an_outage_of_the_sink_loses_nothing(topic: KafkaTopic, stores_offsets: bool) -> None:
    sink = MemorySink(stores_offsets=stores_offsets)
    topic.produce(range(100))
    async with topic.worker(to_row, sink=sink) as worker:
        await wait_until(lambda: len(sink.rows) == 100)
        await wait_until(lambda: sum(topic.committed()) == 100)
        sink.away = True
        topic.produce(range(100, 300))
        await wait_until(lambda: worker.condition == "the sink is away")
        await wait_until(lambda: worker.counters.succeeded == 300)
        assert len(sink.rows) == sum(topic.committed()) == 100
        sink.away = False
        await wait_until(lambda: worker.condition == "running")
        await wait_until(lambda: sum(topic.committed()) == 300)
    assert sorted(row["n"] for row in sink.rows) == list(range(300))


async def test_memory_is_bounded_while_the_sink_is_away(topic: KafkaTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_worker.kafka.buffers._MESSAGES", 200)
    monkeypatch.setattr("redis_worker.kafka.group._CHUNK", 50)
    monkeypatch.setattr("redis_worker.kafka.writer._MOST", 100)
    sink = MemorySink()
    for partition in range(4):
        topic.produce(range(1000), partition)
    worker = topic.worker(to_row, sink=sink)
    async with worker:
        sink.away = True
        await wait_until(lambda: worker.partitions() and all(each.paused for each in worker.partitions()))
        held = sum(each.in_flight + each.buffered for each in worker.partitions())
        assert held < 1000
        sink.away = False
        await wait_until(lambda: len(sink.rows) == 4000)


async def test_memory_is_bounded_while_a_message_is_tried_again(
    topic: KafkaTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_worker.kafka.source._MOST_HELD", 2000)
    sink = MemorySink(stores_offsets=True)
    handled: list[tuple[int, int]] = []
    mended = False

    async def handle(message: KafkaMessage) -> dict[str, Any]:
        if message.partition == message.offset == 0 and not mended:
            raise ValueError("not yet")
        handled.append((message.partition, message.offset))
        return {"n": message.offset}

    for partition in range(4):
        topic.produce(range(1000), partition)
    async with topic.worker(handle, sink=sink, retries=10_000, retry_backoff=0.05, retry_backoff_max=0.05) as worker:
        await wait_until(lambda: len(sink.rows) == 3000)
        held = [offset for partition, offset in handled if partition == 0]
        assert 0 < len(held) < 500
        assert worker.condition == "running"
        mended = True
        await wait_until(lambda: len(sink.rows) == 4000)


@pytest.mark.parametrize("stores_offsets", [False, True])
async def test_a_row_that_is_refused_is_a_dead_letter(topic: KafkaTopic, stores_offsets: bool) -> None:
    async def handler(message: KafkaMessage) -> dict[str, Any]:
        return {"refuse": 1} if message.data % 10 == 3 else {"n": message.data}

    sink = MemorySink(stores_offsets=stores_offsets)
    topic.produce(range(50), partition=0)
    async with topic.worker(handler, sink=sink):
        await wait_until(lambda: topic.committed()[0] == 50)
    assert len(sink.rows) == 45
    found = reasons(topic.dead_letters(5))
    assert set(found) == {b"3", b"13", b"23", b"33", b"43"}
    assert set(found.values()) == {"the sink refuses the row: no such row"}


async def test_offsets_in_the_sink_cover_exactly_what_is_written(topic: KafkaTopic) -> None:
    """Members join, and end at once, as a killed process does: each message is applied once, in order."""
    database = MemorySink(stores_offsets=True, batch_size=7)
    failed: set[int] = set()

    async def handler(message: KafkaMessage) -> dict[str, Any]:
        await asyncio.sleep(random.random() * 0.003)
        if message.data % 31 == 0 and message.data not in failed:
            failed.add(message.data)
            raise ValueError("once")
        return {"n": message.data, "at": (message.partition, message.offset)}

    def member() -> Any:
        return topic.worker(handler, sink=database.for_member(), concurrency=16, properties=QUICK, retry_backoff=0.01)

    topic.produce(range(1500))
    running = [asyncio.create_task(member().run())]
    for count in (300, 600, 900):
        running.append(asyncio.create_task(member().run()))
        await wait_until(lambda count=count: len(database.rows) >= count)
        oldest = running.pop(0)
        oldest.cancel()
        await asyncio.wait({oldest})
    await wait_until(lambda: len(database.rows) >= 1500)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    assert sorted(row["n"] for row in database.rows) == list(range(1500))
    for partition in range(4):
        offsets = [row["at"][1] for row in database.rows if row["at"][0] == partition]
        assert offsets == list(range(len(offsets)))
        assert database.offsets[topic.name, partition] == len(offsets)


async def test_a_member_presumed_dead_writes_nothing_over_its_successor(topic: KafkaTopic) -> None:
    database = MemorySink(stores_offsets=True)
    held = asyncio.Event()
    begun: list[int] = []

    async def slow(message: KafkaMessage) -> dict[str, Any]:
        begun.append(message.data)
        await held.wait()
        return {"n": message.data, "by": "first"}

    for partition in range(4):
        topic.produce(range(2), partition)
    async with topic.worker(slow, sink=database.for_member(), concurrency=16) as first:
        await wait_until(lambda: len(begun) == 8)
        # A successor, of which this member has not heard yet.
        await database.for_member().take(topic.name, "another", [(topic.name, number) for number in range(4)])
        held.set()
        await wait_until(lambda: not first.partitions())
        assert database.rows == []
    assert sum(topic.committed()) == 0


async def test_an_offset_that_only_the_sink_has_is_committed(topic: KafkaTopic) -> None:
    """The owner before has written the rows, and the brokers refused its last commit."""
    topic.produce(range(3), partition=0)
    sink = MemorySink(stores_offsets=True)
    sink.offsets[topic.name, 0] = 3
    async with topic.worker(to_row, sink=sink):
        await wait_until(lambda: topic.committed()[0] == 3)
    assert sink.rows == []


async def test_a_sink_that_is_away_at_start_is_one_sentence_or_waited_for(topic: KafkaTopic) -> None:
    sink = MemorySink()
    sink.away = True
    with pytest.raises(Unreachable, match=r"the database is away \(waited 0\.3 s\)"):
        await topic.worker(to_row, sink=sink, connect_timeout=0.3).run()
    worker = topic.worker(to_row, sink=sink, wait=True)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.3)
    sink.away = False
    await worker.wait_until_started()
    worker.stop()
    await running


async def test_what_is_no_row_is_a_failure(topic: KafkaTopic) -> None:
    topic.produce([1], partition=0)
    async with topic.worker(lambda message: "text", sink=MemorySink(), retries=0):
        await wait_until(lambda: topic.committed()[0] == 1)
    reason = "Processing error: a handler returns a row (a mapping), a list of rows or None, not str"
    assert reasons(topic.dead_letters(1)) == {b"1": reason}
