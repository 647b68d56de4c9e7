"""Sinks in Redis, and several sinks at once: what is written, refused, and written again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from redis_worker import (
    BroadcastSink,
    CacheSink,
    ConfigurationError,
    Disconnected,
    KafkaMessage,
    ListSink,
    Message,
    TopicSink,
    TopicWorker,
)
from redis_worker.broker.client.event_feed import START, EventFeed
from redis_worker.broker.connection.address import address_of
from redis_worker.embedded import EmbeddedServer
from redis_worker.mock_kafka import MockKafka
from redis_worker.pipeline import Pipeline, Sinks
from redis_worker.ports import Sink
from tests.kafka.kafka_support import KafkaTopic, MemorySink, reasons
from tests.support import wait_until


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@asynccontextmanager
async def closing_feed(url: str) -> AsyncIterator[EventFeed]:
    feed = EventFeed(address_of(url))
    yield feed
    await feed.close()


async def test_the_cache_holds_the_last_row_of_each_key(server: EmbeddedServer, redis: Redis) -> None:
    async with CacheSink(server.url, "device:{id}", ttl="1h") as sink:
        assert isinstance(sink, Sink)
        await sink.open()
        rows = [
            {"id": 1, "c": 20.5, "note": "old", "ok": True},
            [{"id": 2, "c": 1}, {"id": 1, "c": 21.5, "note": None}],
        ]
        assert await sink.write(rows) == {}
    assert await redis.hgetall("device:1") == {b"id": b"1", b"c": b"21.5", b"ok": b"true"}
    assert await redis.hgetall("device:2") == {b"id": b"2", b"c": b"1"}
    assert 3_590_000 < await redis.pttl("device:1") <= 3_600_000


async def test_a_key_may_have_several_columns_and_braces(server: EmbeddedServer, redis: Redis) -> None:
    async with CacheSink(server.url, "{{d}}:{a}-{b}:end", form="json") as sink:
        assert list(await sink.write([{"a": 0, "b": "x"}, {"a": [], "b": None}])) == [1]
    assert await redis.keys("*") == [b"{d}:0-x:end"]


async def test_the_cache_writes_json_too(server: EmbeddedServer, redis: Redis) -> None:
    async with CacheSink(server.url, "device:{id}", form="json", ttl=60) as sink, CacheSink(server.url, "k") as lasting:
        await sink.write([{"id": "a", "list": [1, None]}])
        await lasting.write([{"v": "text"}])
    assert await redis.get("device:a") == b'{"id":"a","list":[1,null]}'
    assert 0 < await redis.ttl("device:a") <= 60
    assert await redis.ttl("k") == -1


async def test_a_row_that_cannot_be_written_is_refused_alone(server: EmbeddedServer, redis: Redis) -> None:
    await redis.rpush("device:list", "x")
    told: list[Any] = []

    async def refused(refusals: Any) -> None:
        told.append(refusals)

    async with CacheSink(server.url, "device:{id}") as sink:
        rows = [{"id": "list", "c": 1}, {"c": 2}, {"id": "a", "c": 3}, {"id": "b", "c": object()}, {"id": "", "c": 1}]
        refusals = await sink.write(rows, refused=refused)
    assert told == [refusals]
    assert sorted(refusals) == [0, 1, 3, 4]
    assert refusals[1] == "the row has no 'id', which 'device:{id}' needs"
    assert refusals[3] == "a object is no JSON value"
    assert await redis.hget("device:a", "c") == b"3"


async def test_rows_are_events_of_a_channel(server: EmbeddedServer, redis: Redis) -> None:
    async with BroadcastSink(server.url, "device.{id}") as sink:
        refusals = await sink.write(
            [{"id": n, "c": 1} for n in range(1100)] + [{"id": "x", "c": "y" * 70_000}, {"id": "\n"}]
        )
    assert sorted(refusals) == [1100, 1101]
    position, channels = START, []
    async with closing_feed(server.url) as feed:
        while len(channels) < 1100:
            position, events = await feed.after(position, 1.0)
            channels += [event.channel for event in events]
    assert channels == [f"device.{n}" for n in range(1100)]


async def test_only_the_newest_row_of_a_channel_is_sent_if_asked(server: EmbeddedServer, redis: Redis) -> None:
    async with BroadcastSink(server.url, "device.{id}", newest=True) as sink:
        assert await sink.write([{"id": n % 2, "n": n} for n in range(100)]) == {}
    async with closing_feed(server.url) as feed:
        _, events = await feed.after(START, 1.0)
    assert [orjson.loads(event.json)["data"]["n"] for event in events] == [98, 99]


async def test_of_a_value_that_is_refused_no_row_is_written(server: EmbeddedServer, redis: Redis) -> None:
    """Also where its rows would have been merged with those of others."""
    rows = [{"id": "a", "x": 1}, [{"id": "a", "y": 2}, {"id": "b", "z": object()}], {"id": "a", "x": 3, "w": None}]
    async with CacheSink(server.url, "device:{id}") as sink:
        assert list(await sink.write(rows)) == [1]
    assert await redis.hgetall("device:a") == {b"id": b"a", b"x": b"3"}
    assert not await redis.exists("device:b")


async def test_rows_go_on_into_lists_and_topics(server: EmbeddedServer, redis: Redis) -> None:
    seen: list[Message] = []

    async def handler(message: Message) -> None:
        seen.append(message)

    worker = TopicWorker(server.url)
    worker.handler("alerts.new")(handler)
    async with (
        ListSink(server.url, "alerts:in") as pushed,
        TopicSink(server.url, "alerts.new", id="{n}") as sink,
        worker,
    ):
        assert await pushed.write([{"id": "1", "task": [1]}]) == {}
        assert list(await sink.write([{"n": 7}, {"m": 1}])) == [1]
        await wait_until(lambda: len(seen) == 1)
    assert (seen[0].id, seen[0].data) == ("7", {"n": 7})
    assert await redis.lrange("alerts:in", 0, -1) == [b'{"id":"1","task":[1]}']


@pytest.mark.parametrize("stores_offsets", [False, True])
async def test_several_sinks_get_their_own_rows(mock_kafka: MockKafka, stores_offsets: bool) -> None:
    def to_rows(message: KafkaMessage) -> Any:
        match message.data:
            case 3:
                return {"first": {"n": 3}, "second": {"refuse": 1}}
            case 4:
                return {"third": {"n": 4}}
            case number:
                return {"first": {"n": number}, "second": [{"n": number}, {"n": -number}]}

    first, second = MemorySink(), MemorySink(stores_offsets=stores_offsets)
    topic = KafkaTopic.on(mock_kafka)
    topic.produce(range(1, 7))
    worker = topic.worker(Pipeline(to_rows), sink=Sinks(first=first, second=second))
    async with worker:
        letters = await asyncio.to_thread(topic.dead_letters, 2)
        await wait_until(lambda: sum(topic.committed()) == 6)
        second.away = True
        topic.produce([7])
        await wait_until(lambda: worker.condition == "the sink is away")
        assert sum(topic.committed()) == 6
        second.away = False
        await wait_until(lambda: sum(topic.committed()) == 7)
    assert reasons(letters) == {
        b"3": "the sink refuses the row: second: no such row",
        b"4": "the sink refuses the row: there is no sink 'third', only first, second",
    }
    assert {row["n"] for row in first.rows} == {1, 2, 3, 5, 6, 7}
    flat = [row["n"] for rows in second.rows for row in (rows if isinstance(rows, list) else [rows])]
    assert sorted(flat) == sorted(sign * number for number in (1, 2, 5, 6, 7) for sign in (1, -1))
    if stores_offsets:
        assert sum(second.offsets.values()) == 7


async def test_settings_that_cannot_be_right_are_refused(server: EmbeddedServer) -> None:
    two = {"a": MemorySink(stores_offsets=True), "b": MemorySink(stores_offsets=True)}
    for make, reason in (
        (lambda: CacheSink(server.url, "device:{"), "expected '}'|Single '{'"),
        (lambda: CacheSink(server.url, "device:{0}"), "names of columns in braces"),
        (lambda: CacheSink(server.url, "device:{id:>3}"), "names of columns in braces"),
        (lambda: CacheSink(server.url, "k", form="xml"), "form must be one of hash, json"),  # type: ignore[arg-type]
        (lambda: TopicSink(server.url, "a b"), "not a valid topic"),
        (lambda: ListSink(server.url, ""), "name of a list"),
        (Sinks, "at least one"),
        (lambda: Sinks(**two), "only one sink can store offsets"),
        (lambda: Sinks(a=3), "a is not a sink"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError, match=reason):
            make()  # type: ignore[no-untyped-call]


async def test_a_server_that_is_away_is_no_refusal() -> None:
    async with CacheSink("redis://127.0.0.1:1", "k") as sink:
        for call in (sink.open(), sink.write([{"v": 1}])):
            with pytest.raises(Disconnected):
                await call
