"""A Kafka worker on a mock cluster: what is handled, in which order, and what is committed."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from redis_worker import ConfigurationError, KafkaMessage, Refused, Reject, Retry, Unreachable, processor
from redis_worker.mock_kafka import MockKafka
from tests.kafka.kafka_support import QUICK, KafkaTopic, MemorySink, Seen, reasons, two_members_share
from tests.support import CommandProcess, wait_until


@pytest.fixture
def topic(mock_kafka: MockKafka) -> KafkaTopic:
    return KafkaTopic.on(mock_kafka)


def in_a_process(message: KafkaMessage) -> dict[str, Any]:
    return {"n": message.data, "key": message.key}


@pytest.mark.parametrize("execution", ["async", "thread", "inline"])
async def test_all_messages_are_handled_and_committed(topic: KafkaTopic, execution: Any) -> None:
    seen: list[KafkaMessage] = []
    handler: Any = seen.append
    if execution == "async":
        handler = Seen()
        seen = handler.messages
    topic.produce(range(500), key=lambda number: number % 7)
    async with topic.worker(handler, execution=execution, properties={"session.timeout.ms": 6000}) as worker:
        await wait_until(lambda: len(seen) >= 500)
        await wait_until(lambda: sum(partition.next or 0 for partition in worker.partitions()) == 500)
    assert sorted(message.data for message in seen) == list(range(500))
    assert sum(topic.committed()) == 500
    first = seen[0]
    assert first.id == f"{topic.name}[{first.partition}]@{first.offset}"
    assert (first.topic, first.attempt, first.headers) == (topic.name, 1, [])
    assert first.key == str(first.data % 7).encode()
    assert abs((first.published_at or 0) - time.time()) < 600
    assert (worker.counters.succeeded, worker.counters.failed) == (500, 0)
    if execution == "async":  # a second worker has nothing left to do
        topic.produce([500])
        again = Seen()
        async with topic.worker(again):
            await wait_until(lambda: again.messages)
        assert again.values == [500]


async def test_a_process_gives_rows_of_any_type(topic: KafkaTopic) -> None:
    """Nothing of them passes through JSON: bytes are none."""
    sink = MemorySink()
    topic.produce(range(300), key=lambda number: number)
    async with topic.worker(in_a_process, execution="process", sink=sink, concurrency=2):
        await wait_until(lambda: len(sink.rows) == 300)
    assert sorted(row["n"] for row in sink.rows) == list(range(300))
    assert all(row["key"] == str(row["n"]).encode() for row in sink.rows)


@pytest.mark.parametrize("ordered", ["partition", "key"])
async def test_order_is_kept_over_retries_and_others_go_on(topic: KafkaTopic, ordered: Any) -> None:
    done: defaultdict[Any, list[int]] = defaultdict(list)
    running: set[Any] = set()
    failed: set[int] = set()

    async def handler(message: KafkaMessage) -> None:
        lane = message.partition if ordered == "partition" else message.key
        assert lane not in running
        running.add(lane)
        await asyncio.sleep(random.random() * 0.004)
        running.discard(lane)
        if message.data % 23 == 0 and message.data not in failed:
            failed.add(message.data)
            raise ValueError("once")
        done[lane].append(message.data)

    topic.produce(range(300), key=lambda number: number % 11)
    async with topic.worker(handler, ordered=ordered, concurrency=16, retry_backoff=0.01) as worker:
        await wait_until(lambda: sum(map(len, done.values())) == 300)
        assert worker.counters.retried == len(failed) == 14
    assert all(numbers == sorted(numbers) for numbers in done.values())
    assert sum(topic.committed()) == 300


async def test_a_partition_that_waits_for_a_retry_holds_up_no_other(topic: KafkaTopic) -> None:
    seen = Seen()
    ready = asyncio.Event()

    async def handler(message: KafkaMessage) -> None:
        if message.data == "stuck" and not ready.is_set():
            raise Retry(delay=0.05)
        await seen(message)

    topic.produce(["stuck", "behind"], partition=0)
    topic.produce(range(100), partition=1)
    async with topic.worker(handler, ordered=True):
        await wait_until(lambda: len(seen.values) == 100)
        assert "behind" not in seen.values
        ready.set()
        await wait_until(lambda: len(seen.values) == 102)
    assert seen.values[-2:] == ["stuck", "behind"]


async def test_only_what_is_settled_without_a_gap_is_committed(topic: KafkaTopic) -> None:
    seen, held = Seen(), asyncio.Event()

    async def handler(message: KafkaMessage) -> None:
        await seen(message)
        if message.data == 5:
            await held.wait()

    topic.produce(range(50), partition=0)
    async with topic.worker(handler, concurrency=8) as worker:
        await wait_until(lambda: len(seen.values) == 50)
        await wait_until(lambda: worker.counters.succeeded == 49)
        await wait_until(lambda: topic.committed()[0] == 5)
        (status,) = (each for each in worker.partitions() if each.partition == 0)
        assert (status.next, status.in_flight, status.buffered) == (5, 1, 0)
        await wait_until(lambda: worker.partitions()[0].lag == 45)
        held.set()
        await wait_until(lambda: topic.committed()[0] == 50)


async def test_what_is_exhausted_refused_or_unreadable_is_a_dead_letter(topic: KafkaTopic) -> None:
    async def handler(message: KafkaMessage) -> None:
        match message.data:
            case "fails":
                raise ValueError("it fails")
            case "rejected":
                raise Reject("not this one")

    topic.produce(["fails", "rejected", b"{no JSON", "good"], partition=2, key=lambda _: "k")
    async with topic.worker(handler, retries=2, retry_backoff=0.01) as worker:
        await wait_until(lambda: topic.committed()[2] == 4)
    letters = topic.dead_letters(3)
    found = reasons(letters)
    assert found[b'"fails"'] == "Processing error: it fails"
    assert found[b'"rejected"'] == "Processing error: not this one"
    assert found[b"{no JSON"].startswith("cannot be decoded: ")
    (letter,) = (each for each in letters if each.value() == b'"fails"')
    headers = {name.removeprefix("redis-worker-"): value.decode() for name, value in letter.headers()}
    where = {"topic": topic.name, "partition": "2", "offset": "0", "group": topic.name, "attempts": "3"}
    assert where.items() <= headers.items()
    assert letter.key() == b"k"
    assert (worker.counters.dead, worker.counters.succeeded, worker.counters.retried) == (3, 1, 2)


async def test_dead_letters_in_redis(topic: KafkaTopic, redis: Redis, server: Any) -> None:
    from redis_worker.broker.operator.dead_letters import DeadLetters

    topic.produce([b"no JSON"], partition=1)
    async with topic.worker(Seen(), dead_list="covid", redis=server.url):
        await wait_until(lambda: topic.committed()[1] == 1)
    async with DeadLetters(server.url, "covid") as letters:
        (letter,) = [each async for each in letters.letters()]
    assert (letter.raw, letter.id, letter.attempts) == (b"no JSON", f"{topic.name}[1]@0", 1)
    assert letter.reason.startswith("cannot be decoded")


async def test_two_members_share_and_neither_commits_what_it_gave_up(topic: KafkaTopic) -> None:
    # The mock cluster may refuse the commits of what is revoked for longer than they are repeated.
    await two_members_share(topic, "sticky", once=False, properties=QUICK)


async def test_a_message_that_takes_too_long_is_abandoned_with_its_partition(topic: KafkaTopic) -> None:
    begun, end, other = Seen(), asyncio.Event(), Seen()

    async def slow(message: KafkaMessage) -> None:
        await begun(message)
        await end.wait()

    topic.produce(range(4), key=lambda number: number)
    for number in range(4):
        topic.produce([10 + number], partition=number)
    properties = {"session.timeout.ms": 6000}  # the mock cluster waits as long for the others
    async with topic.worker(slow, concurrency=100, revoke_timeout=0.2, properties=properties) as one:
        await wait_until(lambda: len(begun.values) == 8)
        async with topic.worker(other, properties=properties) as another:
            await wait_until(lambda: len(another.partitions()) == 2)
            gone = {partition.partition for partition in another.partitions()}
            wanted = {message.data for message in begun.messages if message.partition in gone}
            await wait_until(lambda: set(other.values) == wanted)
            end.set()
            await wait_until(lambda: one.counters.succeeded + one.counters.refused == 8)
            assert one.counters.refused == len(wanted)
    assert sum(topic.committed()) == 8


async def test_fetching_pauses_while_nothing_is_handled(topic: KafkaTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_worker.kafka.buffers._MESSAGES", 100)
    monkeypatch.setattr("redis_worker.kafka.group._CHUNK", 20)
    seen, held = Seen(), asyncio.Event()

    async def handler(message: KafkaMessage) -> None:
        if message.partition == 0:
            await held.wait()
        await seen(message)

    topic.produce(range(1000), partition=0)
    topic.produce(range(1000, 1500), partition=1)
    async with topic.worker(handler, ordered=True, concurrency=4) as worker:
        # Another partition goes on, although this one has filled the buffers.
        await wait_until(lambda: len(seen.values) == 500)
        await wait_until(lambda: worker.partitions()[0].paused)
        assert sum(partition.buffered for partition in worker.partitions()) < 300
        held.set()
        await wait_until(lambda: len(seen.values) == 1500)
        await wait_until(lambda: not any(partition.paused for partition in worker.partitions()))
    assert [value for value in seen.values if value < 1000] == list(range(1000))


async def test_batches_take_failures_by_message(topic: KafkaTopic) -> None:
    sizes: list[int] = []
    sink = MemorySink()

    async def handler(messages: list[KafkaMessage]) -> list[Any]:
        sizes.append(len(messages))
        return [
            ValueError("odd") if message.data % 2 else {"n": message.data} if message.data % 4 else None
            for message in messages
        ]

    topic.produce(range(100), partition=0)
    async with topic.worker(handler, batch=True, size=10, within=0.05, retries=0, sink=sink) as worker:
        await wait_until(lambda: topic.committed()[0] == 100)
    assert max(sizes) == 10
    assert sorted(row["n"] for row in sink.rows) == list(range(2, 100, 4))
    assert len(reasons(topic.dead_letters(50))) == worker.counters.dead == 50


async def test_a_batch_handler_with_another_number_of_answers_has_failed(topic: KafkaTopic) -> None:
    topic.produce(range(3), partition=0)
    async with topic.worker(lambda messages: [{}], batch=True, retries=0, sink=MemorySink()):
        await wait_until(lambda: topic.committed()[0] == 3)
    assert "a list with an entry for each of its" in reasons(topic.dead_letters(1)).popitem()[1]


async def test_no_broker_is_one_sentence() -> None:
    worker = KafkaTopic("127.0.0.1:9").worker(Seen(), connect_timeout=0.5)
    with pytest.raises(Unreachable, match=r"no Kafka at 127\.0\.0\.1:9.*waited 0\.5 s"):
        await worker.run()


async def test_an_unknown_topic_is_one_sentence_or_waited_for(mock_kafka: MockKafka) -> None:
    topic = KafkaTopic(mock_kafka.brokers)
    with pytest.raises(Refused, match=f"has no topic '{topic.name}': create it, or check the name"):
        await topic.worker(Seen()).run()
    seen = Seen()
    worker = topic.worker(seen, wait=True)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.5)
    assert worker.condition == "waiting for Kafka"
    mock_kafka.create_topic(topic.name, 4)
    topic.produce([1])
    await wait_until(lambda: seen.values == [1])
    worker.stop()
    await running


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"properties": {"enable.auto.commit": True}}, "the Kafka property enable.auto.commit cannot be set"),
        ({"properties": {"no.such": 1}}, "the settings of Kafka are not valid: .*no.such"),
        ({"properties": {"a": None}}, "the Kafka property a must be a text"),
        ({"topics": []}, "needs a topic"),
        ({"topics": "a b"}, "'a b' is no topic of Kafka"),
        ({"topics": "^("}, "is no regular expression"),
        ({"ordered": "yes"}, "ordered must be one of none, partition, key"),
        ({"batch": True, "ordered": True}, "cannot be ordered"),
        ({"batch": True, "execution": "inline"}, "."),
        ({"dead_list": "x"}, "needs Redis"),
        ({"topics": ["^d", "x"], "dead_letters": "dead"}, r"the topic of dead letters 'dead' is one of \^d,x"),
        ({"dead_list": "x", "dead_letters": "y"}, "set dead_letters or dead_list"),
        ({"colour": 1}, "unknown option 'colour'; a Kafka worker has concurrency, "),
        ({"decode": 7}, "decode must be a type, or a function"),
        ({"retries": -1}, "retries must"),
        ({"assignment": "fair"}, "assignment must be one of sticky, round-robin, range"),
        ({"assignment": "range", "properties": {"group.protocol": "consumer"}}, "group.protocol to be classic"),
    ],
)
async def test_wrong_settings_are_one_sentence(mock_kafka: MockKafka, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        await KafkaTopic(mock_kafka.brokers).worker(lambda message: None, **options).run()


def test_secrets_are_not_shown() -> None:
    from redis_worker.kafka.settings import KafkaSettings

    secrets = {"sasl.password": "hush", "ssl.key.pem": "hush", "sasl.oauthbearer.client.secret": "hush"}
    settings = KafkaSettings(brokers="b", topics=("t",), group="g", properties=secrets | {"sasl.username": "me"})
    assert "hush" not in repr(settings)
    assert "'sasl.username': 'me'" in repr(settings)
    assert settings.producer()["sasl.password"] == "hush"


async def test_brokers_go_and_come_back(topic: KafkaTopic) -> None:
    with MockKafka() as own:
        topic = KafkaTopic.on(own)
        seen = Seen()
        async with topic.worker(seen, dead_letters="none") as worker:
            topic.produce(range(10))
            await wait_until(lambda: len(seen.values) == 10)
            own.down()
            await wait_until(lambda: worker.condition == "Kafka is away")
            own.up()
            await wait_until(lambda: worker.condition == "running")
            topic.produce(range(10, 20))
            await wait_until(lambda: len(set(seen.values)) == 20)


@pytest.mark.parametrize("execution", ["thread", "process"])
def test_a_worker_is_made_outside_of_any_event_loop(mock_kafka: MockKafka, execution: Any) -> None:
    topic = KafkaTopic.on(mock_kafka)
    topic.produce([1])
    worker = topic.worker(in_a_process, execution=execution)
    assert (worker.running, worker.running_tasks(), worker.condition) == (0, [], "waiting for Kafka")

    async def run() -> None:
        async with worker:
            await wait_until(lambda: sum(topic.committed()) == 1)

    asyncio.run(run())


@processor(retries=1, retry_backoff=0.01)
async def declared(message: KafkaMessage) -> None:
    raise ValueError("always")


async def test_a_handler_brings_its_own_declaration(topic: KafkaTopic) -> None:
    topic.produce([1], partition=0)
    async with topic.worker(declared) as worker:
        await wait_until(lambda: topic.committed()[0] == 1)
    assert (worker.counters.retried, worker.counters.dead) == (1, 1)


class Report(msgspec.Struct):
    city: str
    cases: int


@pytest.mark.parametrize(
    ("decode", "raw", "found"),
    [
        (None, b'{"n": 12345678901234567890123}', {"n": 12345678901234567890123}),
        (Report, b'{"city": "Rome", "cases": 3}', Report("Rome", 3)),
        (list[int], b"[1, 2]", [1, 2]),
        (bytes, b"\xff\x00", b"\xff\x00"),
        (lambda raw: raw.decode().upper(), b"text", "TEXT"),
        (Report, None, None),
        (Report, b'{"city": "Rome", "cases": "many"}', "cannot be decoded: Expected `int`, got `str` - at `$.cases`"),
        (Report, b"", "cannot be decoded: Input data was truncated"),
        (None, b"\xff", "cannot be decoded: "),
    ],
)
async def test_values_are_decoded(topic: KafkaTopic, decode: Any, raw: bytes | None, found: Any) -> None:
    seen = Seen()
    topic.produce([raw], partition=0)
    async with topic.worker(seen, decode=decode) as worker:
        await wait_until(lambda: topic.committed()[0] == 1)
    if worker.counters.dead:
        assert reasons(topic.dead_letters(1))[raw].startswith(found)
    else:
        assert seen.values == [found]


@pytest.mark.long
async def test_a_member_that_slept_gives_up_what_others_have(topic: KafkaTopic, tmp_path: Path) -> None:
    """It is presumed dead: its successor handles all, and it commits nothing over it when it wakes."""
    log, seen = tmp_path / "log", Seen()
    topic.produce(range(300))
    process = CommandProcess(topic.brokers, topic.name, str(log), program="tests.kafka.killed_worker")
    try:
        await wait_until(lambda: sum(topic.committed()) == 300)
        process.freeze()
        topic.produce(range(300, 600))
        async with topic.worker(seen, properties=QUICK) as worker:
            await wait_until(lambda: sum(topic.committed()) == 600)
            process.signal(signal.SIGCONT)
            await wait_until(lambda: len(worker.partitions()) == 2)
            topic.produce(range(600, 900))
            await wait_until(lambda: sum(topic.committed()) == 900)
    finally:
        process.close()
    handled = set(map(int, log.read_text().split())) | set(seen.values)
    assert handled == set(range(900))


async def test_a_call_in_a_thread_has_a_time_limit(topic: KafkaTopic) -> None:
    end = threading.Event()
    topic.produce([1], partition=0)
    async with topic.worker(lambda message: end.wait(30), timeout=0.2, retries=1, retry_backoff=0.01) as worker:
        await wait_until(lambda: topic.committed()[0] == 1)
        end.set()
    assert worker.counters.retried == 1
    assert reasons(topic.dead_letters(1)) == {b"1": "Processing error: timed out after 0.2 s"}
