"""Topics: who handles what, what becomes of it, and that nothing is done twice that must not be."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import fakeredis
import pytest
from redis.asyncio import Redis

from redis_worker import (
    ConfigurationError,
    Handlers,
    Message,
    Publisher,
    Reject,
    Retry,
    TopicWorker,
    Unreachable,
    WorkerPool,
)
from redis_worker.broker.keys import Keys, topic_list
from redis_worker.embedded import EmbeddedServer
from tests.support import DueTimes, wait_until

New = Callable[..., TopicWorker]

# What the names of keys end with that are there only as long as a worker is.
_PASSING = ("workers", "presence", "retired", "attempts", "arrived", "begun")


@pytest.fixture
async def publisher(server: EmbeddedServer, redis: Redis) -> AsyncIterator[Publisher]:
    """At the end no worker may be registered and nothing be in flight."""
    async with Publisher(server.url) as publisher:
        yield publisher
    left = {key.decode() for key in await redis.keys("*mq*")}
    leftover = {key for key in left if key.rpartition(":")[2] in _PASSING}
    assert not leftover | {key for key in left if ":inflight:" in key}


@pytest.fixture
def new(server: EmbeddedServer) -> New:
    return lambda **options: TopicWorker(server.url, **options)


class Seen:
    """What a handler was called with."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> object:
        self.messages.append(message)
        return object()  # what a handler returns is of no concern

    @property
    def data(self) -> list[Any]:
        return [message.data for message in self.messages]

    async def until(self, count: int) -> list[Any]:
        await wait_until(lambda: len(self.messages) >= count, f"{count} messages; there are {len(self.messages)}")
        return self.data


async def dead(redis: Redis, topic: str) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in await redis.lrange(Keys(topic_list(topic)).dead, 0, -1)]


async def buried(redis: Redis, topic: str, count: int = 1) -> list[dict[str, Any]]:
    return await wait_until(lambda: _enough(redis, topic, count), f"{count} dead letters of {topic}")


async def _enough(redis: Redis, topic: str, count: int) -> list[dict[str, Any]]:
    letters = await dead(redis, topic)
    return letters if len(letters) >= count else []


async def test_any_program_can_publish(redis: Redis, publisher: Publisher, new: New) -> None:
    await redis.rpush(
        "mq:order.reminder", b'{"id":7,"topic":"order.reminder","data":{"n":1},"published_at":12.5,"x":1}'
    )
    await redis.rpush("mq:order.reminder", '{"data":"\u00e9", "id":"b"}')
    assert await redis.llen("mq:order.reminder") == 2
    worker, seen = new(), Seen()
    worker.handler("order.reminder", concurrency=1)(seen)
    async with worker:
        await seen.until(2)
        await publisher.publish("order.reminder", 2**100, id="c")
        await seen.until(3)
    assert seen.messages[:2] == [
        Message("7", "order.reminder", {"n": 1}, 12.5, 1),
        Message("b", "order.reminder", "\u00e9", None, 1),
    ]
    last = seen.messages[2]
    assert (last.id, last.data, last.attempt) == ("c", 2**100, 1)
    assert abs(last.published_at - time.time()) < 60
    assert await redis.llen("mq:order.reminder") == 0
    assert (worker.counters.succeeded, worker.counters.failed) == (3, 0)


async def test_handlers_may_be_declared_before_a_server_is_known(publisher: Publisher, new: New) -> None:
    handlers, seen, others = Handlers(), Seen(), Seen()
    handlers.handler("a")(seen)
    handlers.default_handler(others)
    worker = new()
    worker.include(handlers)
    async with worker:
        await publisher.publish_many("a", [1, 2], ids=["x", 7])
        await publisher.publish("b", 3)
        await others.until(1)
        await seen.until(2)
        worker.handler("late")(seen)  # and while it runs
        await publisher.publish("late", 4)
        await seen.until(3)
        await wait_until(lambda: worker.counters.succeeded == 4)
    assert [(message.id, message.topic) for message in seen.messages[:2]] == [("x", "a"), ("7", "a")]
    done = {topic: counters.succeeded for topic, counters in worker.topic_counters.items()}
    assert done == {"a": 2, "b": 1, "late": 1}
    with pytest.raises(ConfigurationError, match="two handlers for 'a'"):
        worker.include(handlers)


async def test_as_many_ids_as_messages(publisher: Publisher) -> None:
    with pytest.raises(ValueError, match=r"longer|shorter"):
        await publisher.publish_many("t", [1, 2], ids=["a"])


async def test_what_cannot_be_read_is_a_dead_letter_and_the_rest_goes_on(
    redis: Redis, publisher: Publisher, new: New
) -> None:
    bad = [b"{", b"\xff", b"[1]", b'{"data":1}', b'{"id":null,"data":1}', b'{"id":"a"}']
    await redis.rpush("mq:t", *bad, b'{"id":"good","data":null}')
    worker, seen = new(), Seen()
    worker.handler("t")(seen)
    async with worker:
        assert await seen.until(1) == [None]
        letters = await buried(redis, "t", len(bad))
    assert [letter["reason"].partition(":")[0] for letter in letters] == [
        "not JSON", "not JSON", "not a JSON object but a list", "the id is missing",
        "the id is null, not a string or integer", "the data is missing",
    ]  # fmt: skip
    assert letters[0]["raw"] == "{"


async def test_handlers_run_where_they_say(publisher: Publisher, new: New) -> None:
    worker = new()
    threads: dict[str, str] = {}

    def note(message: Message) -> None:
        threads[message.topic] = threading.current_thread().name

    async def note_async(message: Message) -> None:
        note(message)

    worker.handler("coroutine")(note_async)
    worker.handler("thread")(note)
    worker.handler("inline", execution="inline")(note)
    async with worker:
        for topic in ("coroutine", "thread", "inline"):
            await publisher.publish(topic, 1)
        await wait_until(lambda: len(threads) == 3)
    main = threading.current_thread().name
    assert threads["coroutine"] == threads["inline"] == main
    assert threads["thread"].startswith("redis-worker")


async def test_failures_are_retried_and_then_dead_letters(redis: Redis, publisher: Publisher, new: New) -> None:
    worker = new()
    tries: Counter[Any] = Counter()

    @worker.handler("t", retries=2, retry_backoff=0.01)
    async def handle(message: Message) -> None:
        tries[message.data] += 1
        assert message.attempt == tries[message.data]
        if message.data == "never":
            raise ValueError("no")
        if message.data == "later" and message.attempt == 1:
            raise Retry("busy", delay=0.01)
        if message.data == "reject":
            raise Reject("nonsense")

    raw = b'{"published_at": 1, "topic": "t", "id": "n",  "data": "never"}'
    await redis.rpush("mq:t", raw)
    for data in ("later", "reject", "fine"):
        await publisher.publish("t", data, id=data)
    async with worker:
        letters = await buried(redis, "t", 2)
        await wait_until(lambda: worker.counters.succeeded == 2)
    assert tries == {"never": 3, "later": 2, "reject": 1, "fine": 1}
    told = {letter["id"]: (letter["reason"], letter["attempts"]) for letter in letters}
    assert told == {"n": ("Processing error: no", 3), "reject": ("Processing error: nonsense", 1)}
    assert [letter["raw"].encode() for letter in letters if letter["id"] == "n"] == [raw]


async def test_a_failure_is_a_dead_letter_even_without_retries(redis: Redis, publisher: Publisher, new: New) -> None:
    worker = new()

    @worker.handler("t", retries=0, timeout=0.01)
    async def handle(message: Message) -> None:
        await asyncio.sleep(60)

    await publisher.publish("t", 1)
    async with worker:
        [letter] = await buried(redis, "t")
    assert letter["reason"] == "Processing error: timed out after 0.01 s"


async def test_patterns_find_known_topics_and_the_best_match_wins(
    redis: Redis, publisher: Publisher, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    worker = new()
    calls: list[tuple[str, str]] = []

    def handler(name: str) -> Callable[[Message], Any]:
        async def handle(message: Message) -> None:
            calls.append((name, message.topic))

        return handle

    for pattern in ("order.*", "order.reminder", "order.r*"):
        worker.handler(pattern)(handler(pattern))
    await publisher.publish("order.paid", 1)
    async with worker:
        await publisher.publish("order.reminder", 1)
        await publisher.publish("order.return", 1)
        await publisher.publish("payment", 1)
        await wait_until(lambda: len(calls) == 3)
        assert sorted(calls) == [
            ("order.*", "order.paid"), ("order.r*", "order.return"), ("order.reminder", "order.reminder"),
        ]  # fmt: skip
        # What nobody here handles is left to others, who may.
        assert await redis.llen("mq:payment") == 1
        worker.default_handler(handler("default"))
        await wait_until(lambda: ("default", "payment") in calls)
    assert await redis.smembers("{mq}:topics") == {b"order.paid", b"order.reminder", b"order.return", b"payment"}


async def test_a_topic_asked_for_that_nobody_handles(
    redis: Redis, publisher: Publisher, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    worker = new()
    await publisher.publish("lonely", 1, id="x")
    with caplog.at_level(logging.WARNING, "redis_worker"):
        async with worker:
            await worker.start_consumer("lonely")
            [letter] = await buried(redis, "lonely")
    assert letter["reason"] == "Processing error: there is no handler for the topic lonely"
    assert "no handler for the topic lonely" in caplog.records[0].getMessage()


async def test_topics_are_started_and_stopped_while_it_runs(redis: Redis, publisher: Publisher, new: New) -> None:
    worker, seen, release = new(), Seen(), asyncio.Event()
    worker.handler("a")(seen)

    @worker.handler("b.*", concurrency=2)
    async def slow(message: Message) -> None:
        await release.wait()
        await seen(message)

    await publisher.publish("b.1", "slow")
    async with worker:
        await wait_until(lambda: [(s.topic, s.running) for s in worker.status()] == [("a", 0), ("b.1", 1)])
        status = worker.status()[1]
        assert (status.handler, status.concurrency, status.counters.claimed) == ("slow", 2, 1)
        stopping = asyncio.create_task(worker.stop_consumer("b.1"))
        release.set()
        await stopping  # what runs finishes first
        await publisher.publish("b.1", "after the stop")
        assert seen.data == ["slow"]
        assert [status.topic for status in worker.status()] == ["a"]
        await publisher.publish("a", "a")
        await seen.until(2)
        assert await redis.llen("mq:b.1") == 1  # and it is not found again by its pattern
        await worker.start_consumer("b.1")
        assert await seen.until(3) == ["slow", "a", "after the stop"]
        await worker.stop_consumers()
        assert worker.status() == []
    assert worker.counters.succeeded == 3


async def test_what_is_not_started_goes_back_in_order(redis: Redis, publisher: Publisher, new: New) -> None:
    worker, started, release = new(), Seen(), asyncio.Event()

    @worker.handler("t", concurrency=2)
    async def handle(message: Message) -> None:
        await started(message)
        await release.wait()

    await publisher.publish_many("t", range(6))
    async with worker:
        await started.until(2)
        worker.stop()
        await wait_until(lambda: redis.llen("mq:t"))
        release.set()
    left = [json.loads(raw)["data"] for raw in await redis.lrange("mq:t", 0, -1)]
    assert sorted(started.data + left) == list(range(6))
    assert left == sorted(left)


async def test_what_runs_can_be_seen(publisher: Publisher, new: New) -> None:
    worker, release = new(), asyncio.Event()

    @worker.handler("one")
    async def wait_alone(message: Message) -> None:
        await release.wait()

    @worker.batch_handler("many", within=0)
    async def wait_together(messages: list[Message]) -> None:
        await release.wait()

    async with worker:
        await publisher.publish("one", 1, id="a")
        await wait_until(lambda: worker.running == 1)
        await publisher.publish_many("many", [1, 2], ids=["b", "c"])
        await wait_until(lambda: len(worker.running_tasks()) == 3)
        tasks = worker.running_tasks()
        release.set()
    assert [task.id for task in tasks] == ["a", "b", "c"]
    assert "wait_alone" in tasks[0].stack
    assert "wait_together" in tasks[1].stack
    assert tasks[0].seconds >= tasks[1].seconds > 0


async def test_caps_hold_and_a_flood_starves_nobody(publisher: Publisher, new: New) -> None:
    worker = new(concurrency=3)
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    order: list[str] = []

    async def handle(message: Message) -> None:
        running[message.topic] += 1
        running["all"] += 1
        for name in (message.topic, "all"):
            most[name] = max(most[name], running[name])
        await asyncio.sleep(0.005)
        running[message.topic] -= 1
        running["all"] -= 1
        order.append(message.topic)

    worker.handler("flood", concurrency=50)(handle)
    worker.handler("other", concurrency=2)(handle)
    await publisher.publish_many("flood", range(600))
    async with worker:
        await wait_until(lambda: len(order) > 30)
        await publisher.publish_many("other", range(20))
        published = len(order)
        await wait_until(lambda: len(order) == 620)
    assert most["all"] == 3
    assert most["flood"] <= 3
    assert most["other"] <= 2
    # Fairly, the last of the 20 comes some 40 to 60 places after they were published.
    assert max(place for place, topic in enumerate(order) if topic == "other") < published + 300


@pytest.mark.parametrize("batch", [False, True])
async def test_a_shared_cap_holds_for_claims_too(redis: Redis, publisher: Publisher, new: New, batch: bool) -> None:
    """What one worker has no slot for stays in the queue, for others."""
    worker, gate = new(concurrency=3), asyncio.Event()

    async def handle(_: Any) -> None:
        await gate.wait()

    if batch:
        worker.batch_handler("flood", concurrency=50, size=1, within=0)(handle)
    else:
        worker.handler("flood", concurrency=50)(handle)
    await publisher.publish_many("flood", range(100))
    async with worker:
        await wait_until(lambda: worker.running == 3)
        assert worker.counters.claimed <= 4  # one waits for the next slot
        assert await redis.llen("mq:flood") >= 96
        gate.set()
        await wait_until(lambda: worker.counters.succeeded == 100)


async def test_many_topics_share_their_connections(redis: Redis, publisher: Publisher, new: New) -> None:
    worker, seen = new(), Seen()
    before = len(await redis.client_list())
    for number in range(100):
        worker.handler(f"t{number}")(seen)
    async with worker:
        for number in range(100):
            await publisher.publish(f"t{number}", number)
        assert sorted(await seen.until(100)) == list(range(100))
        await wait_until(lambda: worker.counters.succeeded == 100)
        assert len(await redis.client_list()) - before < 50  # a client makes 32 calls at once


async def test_batches(redis: Redis, publisher: Publisher, new: New) -> None:
    worker = new()
    batches: list[list[Any]] = []
    failed: set[str] = set()

    @worker.batch_handler("t", size=10, within=0.05, retries=2, retry_backoff=0.01)
    async def handle(messages: list[Message]) -> dict[str, Any]:
        batches.append([message.data for message in messages])
        odd = {
            message.id: ValueError("odd") for message in messages if message.data % 5 == 1 and message.id not in failed
        }
        failed.update(odd)
        rejected = {message.id: Reject("seven") for message in messages if message.data == 7}
        return odd | rejected

    await publisher.publish_many("t", range(25))
    async with worker:
        await wait_until(lambda: worker.counters.succeeded == 24)
        [letter] = await buried(redis, "t")
        sizes = [len(batch) for batch in batches]
        assert max(sizes) == 10
        counts = Counter(data for batch in batches for data in batch)
        assert counts == Counter({data: 2 if data % 5 == 1 else 1 for data in range(25)})
        await publisher.publish("t", 100)  # alone: it waits no longer than it is told to
        await wait_until(lambda: batches[-1] == [100])
    assert letter["reason"] == "Processing error: seven"


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ([1], "a batch handler returns None, or {id: reason} of what has failed; got [1]"),
        ({"other": "no"}, "a batch handler has returned the id 'other', which is not in its batch"),
        (ValueError("all of it"), "all of it"),
    ],
)
async def test_a_batch_that_fails_as_a_whole(
    redis: Redis, publisher: Publisher, new: New, returned: Any, reason: str
) -> None:
    worker = new()

    @worker.batch_handler("t", within=0, retries=0)
    def handle(messages: list[Message]) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    await publisher.publish_many("t", range(3))
    async with worker:
        letters = await buried(redis, "t", 3)
    assert {letter["reason"] for letter in letters} == {f"Processing error: {reason}"}


async def test_a_batch_in_a_thread_past_its_time_limit_keeps_its_slot(
    redis: Redis, publisher: Publisher, new: New
) -> None:
    """The thread goes on, whatever has become of its messages: another one would be one too many."""
    worker, gate, running, most = new(), threading.Event(), [0], [0]

    @worker.batch_handler("t", size=1, within=0, concurrency=1, timeout=1, retries=0)
    def handle(messages: list[Message]) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        if messages[0].data == "slow":
            gate.wait(60)
        running[0] -= 1

    await publisher.publish_many("t", ["slow", "quick", "quick"])
    try:
        async with worker:
            [letter] = await buried(redis, "t")
            assert letter["reason"] == "Processing error: timed out after 1 s"
            # Nothing else is begun, however often the loop turns: the one slot is taken.
            for _ in range(200):
                await asyncio.sleep(0.002)
            assert (worker.running, worker.counters.succeeded) == (1, 0)
            gate.set()
            await wait_until(lambda: worker.counters.succeeded == 2)
    finally:
        gate.set()
    assert most == [1]


async def test_of_idempotent_twins_one_is_handled(redis: Redis, publisher: Publisher, new: New) -> None:
    """On four workers, while the others are under way, and afterwards."""
    runs: Counter[str] = Counter()
    workers = [new() for _ in range(4)]
    for worker in workers:

        @worker.handler("t", idempotent=True, concurrency=5)
        async def handle(message: Message) -> None:
            runs[message.id] += 1
            await asyncio.sleep(0.05)

    for copy in range(3):
        for number in range(20):
            await publisher.publish("t", copy, id=number)
    for worker in workers:
        await worker.__aenter__()
    await wait_until(lambda: sum(worker.counters.processed for worker in workers) == 60)
    for worker in workers:
        await worker.__aexit__(None, None, None)
    assert runs == {str(number): 1 for number in range(20)}
    assert sum(worker.counters.skipped for worker in workers) == 40
    assert await redis.hlen(Keys("mq:t").begun) == 0


async def test_what_was_completed_is_remembered_for_a_while(
    redis: Redis, publisher: Publisher, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    worker, seen = new(), Seen()
    worker.handler("t", idempotent=True, remember=0.3)(seen)
    with caplog.at_level(logging.INFO, "redis_worker"):
        async with worker:
            await publisher.publish("t", "first", id=1)
            await seen.until(1)
            await publisher.publish("t", "second", id=1)
            await wait_until(lambda: worker.counters.skipped == 1)
            await wait_until(lambda: _forgotten(redis))
            await publisher.publish("t", "third", id=1)
            assert await seen.until(2) == ["first", "third"]
    assert any("completed before" in record.getMessage() for record in caplog.records)


async def _forgotten(redis: Redis) -> bool:
    seconds, micros = await redis.time()
    return (await redis.zscore(Keys("mq:t").done, "1") or 0) < seconds * 1000 + micros / 1000


async def test_what_failed_is_not_completed(redis: Redis, publisher: Publisher, new: New) -> None:
    """A dead letter that is put back is handled, and so is a retry."""
    worker, broken = new(), True
    runs: list[int] = []

    @worker.handler("t", idempotent=True, retries=1, retry_backoff=0.01)
    async def handle(message: Message) -> None:
        runs.append(message.attempt)
        if broken:
            raise ValueError("broken")

    await publisher.publish("t", 1, id="a")
    async with worker:
        [letter] = await buried(redis, "t")
        broken = False
        await redis.delete(Keys("mq:t").dead)
        await redis.rpush("mq:t", letter["raw"])
        await wait_until(lambda: worker.counters.succeeded == 1)
    assert runs == [1, 2, 1]


async def test_a_message_put_off_by_its_twin_is_handled_when_the_twin_fails(
    redis: Redis, publisher: Publisher, new: New
) -> None:
    worker = new()
    runs: list[Any] = []

    @worker.handler("t", idempotent=True, retries=0)
    async def handle(message: Message) -> None:
        runs.append(message.data)
        await wait_until(lambda: redis.zcard(Keys("mq:t").delayed))
        if message.data == "first":
            raise ValueError("no")

    await publisher.publish("t", "first", id="a")
    await publisher.publish("t", "second", id="a")
    async with worker:
        await buried(redis, "t")
        await redis.zadd(Keys("mq:t").delayed, {"ffff:unused": 1e15})  # so that the second does not wait for a third
        await wait_until(lambda: worker.counters.succeeded == 1)
    assert runs == ["first", "second"]
    await redis.delete(Keys("mq:t").delayed)


async def test_delays_none_early_each_once(redis: Redis, publisher: Publisher, new: New) -> None:
    """Four workers wait; the server's clock decides, and one of them brings each message back."""
    times = DueTimes(redis)
    workers = [new() for _ in range(4)]

    async def handle(message: Message) -> None:
        await times.ran(*message.data)

    for worker in workers:
        worker.handler("t")(handle)
        await worker.__aenter__()
    for number in range(200):
        delay = random.random()
        await publisher.publish("t", [number, await times.due_in(delay)], delay)
    await wait_until(lambda: sum(worker.counters.succeeded for worker in workers) == 200)
    for worker in workers:
        await worker.__aexit__(None, None, None)
    times.check(200)


async def test_a_server_that_goes_away_and_comes_back(own_server: EmbeddedServer) -> None:
    worker, seen = TopicWorker(own_server.url, lease=2), Seen()
    worker.handler("a")(seen)
    worker.handler("b.*")(seen)
    async with worker:
        async with Publisher(own_server.url) as publisher:
            await publisher.publish("a", 1)
            await publisher.publish("b.x", 2)
            await seen.until(2)
        await asyncio.to_thread(own_server.restart, signal.SIGKILL)
        async with Publisher(own_server.url) as publisher:
            await publisher.publish("a", 3)
            await publisher.publish("b.y", 4)
            assert sorted(await seen.until(4)) == [1, 2, 3, 4]


async def test_without_the_right_to_track_it_looks_now_and_then(
    server: EmbeddedServer, redis: Redis, publisher: Publisher
) -> None:
    """All messages are handled, without a doorbell."""
    await redis.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    worker, seen = TopicWorker(server.url.replace("://", "://limited:secret@")), Seen()
    worker.handler("t")(seen)
    try:
        async with worker:
            for number in range(3):
                await publisher.publish("t", number)
                await seen.until(number + 1)
    finally:
        await redis.execute_command("ACL", "DELUSER", "limited")


async def test_with_fakeredis() -> None:
    client = fakeredis.FakeAsyncRedis()
    worker, seen = TopicWorker(client), Seen()
    worker.handler("t")(seen)
    async with worker, Publisher(client) as publisher:
        await publisher.publish("t", 1)
        assert await seen.until(1) == [1]
    await client.aclose()


async def test_a_list_that_is_none(
    redis: Redis, publisher: Publisher, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left alone with a log line, and others are handled."""
    await redis.set("mq:bad.x", "a string")
    await redis.sadd("{mq}:topics", "bad.x")
    worker, seen = new(), Seen()
    worker.handler("bad.*")(seen)
    async with worker:  # found by a pattern: one topic does not end the others
        await wait_until(lambda: "the topic bad.x is not consumed, retrying periodically" in caplog.text)
        await publisher.publish("bad.y", 1)
        await seen.until(1)


def test_what_does_not_fit_is_said_at_once(new: New) -> None:
    worker = new()
    worker.handler("a")(Seen())

    def plain(message: Message) -> None: ...

    for pattern, options, complaint in (
        ("a", {}, "two handlers for 'a'"),
        ("a b", {}, "'a b' is not a valid topic"),
        ("b", {"concurrency": 0}, "handler plain: concurrency must be at least 1, got 0"),
        ("b", {"retries": -1}, "handler plain: retries must not be negative, got -1"),
        ("b", {"idempotent": True, "remember": 0}, "handler plain: remember must be above 0 seconds, got 0"),
        ("b", {"timeout": 0}, "handler plain: the time limit must be above 0 seconds, got 0"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            worker.handler(pattern, **options)(plain)
    with pytest.raises(ConfigurationError, match="a batch cannot be handled inline"):
        worker.batch_handler("b", execution="inline")(plain)
    with pytest.raises(ConfigurationError, match="size must be at least 1"):
        worker.batch_handler("b", size=0)(plain)
    with pytest.raises(ConfigurationError, match="concurrency must be at least 1"):
        new(concurrency=0)


async def test_no_topic_has_such_a_name(publisher: Publisher) -> None:
    for name in ("", "order.*", "a b", "{a}"):
        with pytest.raises(ConfigurationError, match="is not a valid topic"):
            await publisher.publish(name, 1)


async def test_a_server_that_turns_work_away_is_waited_for(server: EmbeddedServer, redis: Redis) -> None:
    """It answers, but it is full: for a topic worker as for a pool."""
    await redis.config_set("maxmemory", 1)
    try:
        worker = TopicWorker(server.url, connect_timeout=0.2)
        worker.handler("t")(Seen())
        for hasty in (worker, WorkerPool(server.url, "in", "out", "list", "sum", connect_timeout=0.2)):
            with pytest.raises(Unreachable, match=r"is up but refuses commands \(waited 0\.2 s\): .*maxmemory"):
                await hasty.run()
        patient = [TopicWorker(server.url), WorkerPool(server.url, "in", "out", "list", "sum")]
        patient[0].handler("t")(Seen())
        running = [asyncio.create_task(service.run()) for service in patient]
        await asyncio.sleep(0.2)  # they are turned away meanwhile, or have not asked yet: both will do
        assert not any(service.started for service in patient)
    finally:
        await redis.config_set("maxmemory", 0)
    for service, task in zip(patient, running, strict=True):
        await service.wait_until_started()
        service.stop()
        await task
