"""Pipelines: what stages pass on, drop, reject and multiply, in a worker and alone; formats that are told apart."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_worker import ConfigurationError, Handlers, Reject, Retry, TopicWorker
from redis_worker.embedded import EmbeddedServer
from redis_worker.http.metrics import Metrics
from redis_worker.mock_kafka import MockKafka
from redis_worker.pipeline import Emit, Formats, Pipeline, Rejected, StageFailed, StageStatus, stage
from tests.kafka.kafka_support import KafkaTopic, MemorySink, reasons
from tests.support import wait_until
from tests.test_http import get

ACTIONS = ("pass", "drop", "reject", "fail", "twice", "none", "retry")


def act(action: str, name: str, value: int) -> Any:
    """Do what a stage can do, as its reference does below."""
    match action:
        case "drop":
            return None
        case "reject":
            raise Rejected("bad", field="f")
        case "fail":
            raise ValueError(f"{value}")
        case "twice":
            return Emit([value * 2, value * 2 + 1])
        case "none":
            return Emit()
        case "retry":
            raise Retry(name)
    return value + 1


def expected(plan: list[list[str]], start: int) -> Any:
    """Return the entry of a message, one stage after the other; a failure is its text."""
    values = [start]
    for number, actions in enumerate(plan):
        found: list[int] = []
        failed = None
        for value in values:
            match actions[value % len(actions)]:
                case "pass":
                    found.append(value + 1)
                case "twice":
                    found += [value * 2, value * 2 + 1]
                case "reject":
                    failed = failed or f"stage s{number}: field f: bad"
                case "fail":
                    failed = failed or f"stage s{number}: ValueError: {value}"
                case "retry":
                    failed = failed or f"s{number}"
        if failed:
            return failed
        values = found
    return None if not values else values[0] if len(values) == 1 else values


def built(plan: list[list[str]], kinds: list[str]) -> Pipeline:
    """Return the pipeline of a plan; each of its stages of one of the four kinds."""

    def make(number: int, actions: list[str]) -> Any:
        name = f"s{number}"

        def single(value: int) -> Any:
            return act(actions[value % len(actions)], name, value)

        async def single_async(value: int) -> Any:
            await asyncio.sleep(0)
            return single(value)

        def batch(values: list[int]) -> list[Any]:
            entries: list[Any] = []
            for value in values:
                try:
                    entries.append(single(value))
                except Exception as error:
                    entries.append(error)
            return entries

        async def batch_async(values: list[int]) -> list[Any]:
            return batch(values)

        kind = kinds[number % len(kinds)]
        function = {"single": single, "single_async": single_async, "batch": batch, "batch_async": batch_async}[kind]
        return stage(name=name, batch=kind.startswith("batch"))(function)

    return Pipeline(*(make(number, actions) for number, actions in enumerate(plan)))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(("pass",) * 3 + ACTIONS), min_size=1, max_size=5), min_size=1, max_size=4),
    st.lists(st.sampled_from(("single", "single_async", "batch", "batch_async")), min_size=1, max_size=4),
    st.integers(0, 30),
)
def test_a_batch_has_the_entries_of_its_messages_alone(plan: list[list[str]], kinds: list[str], count: int) -> None:
    pipeline = built(plan, kinds)
    entries = asyncio.run(pipeline.run(range(count)))
    shown = [str(entry) if isinstance(entry, Exception) else entry for entry in entries]
    assert shown == [expected(plan, start) for start in range(count)]
    first = pipeline.status()[0]
    assert first.received == count
    for before, after in zip(pipeline.status(), pipeline.status()[1:], strict=False):
        assert after.received == before.emitted
    ends = sum(len(entry) if isinstance(entry, list) else 1 for entry in entries if isinstance(entry, list | int))
    assert pipeline.status()[-1].emitted == ends


async def test_errors_are_rejections_failures_or_retries() -> None:
    def handle(value: Any) -> Any:
        raise value

    async def failure(error: Exception) -> Exception:
        with pytest.raises(Exception) as found:
            await Pipeline(handle)(error)
        return found.value

    rejected = await failure(Reject("no"))
    assert isinstance(rejected, Rejected)
    assert (str(rejected), rejected.stage, rejected.field) == ("stage handle: no", "handle", None)
    failed = await failure(KeyError("k"))
    assert isinstance(failed, StageFailed)
    assert str(failed) == "stage handle: KeyError: 'k'"
    retry = Retry(delay=3)
    assert await failure(retry) is retry


async def test_a_batch_stage_that_breaks_its_promise_fails_every_message() -> None:
    @stage(batch=True)
    def short(values: list[int]) -> list[int]:
        return values[1:]

    entries = await Pipeline(short).run([1, 2])
    assert [str(entry) for entry in entries] == [
        "stage short: TypeError: a batch stage returns a list with an entry for each of 2 values, got 1 entries"
    ] * 2


def test_what_is_no_pipeline_is_refused() -> None:
    def nothing() -> None: ...

    with pytest.raises(ConfigurationError, match="has no stages"):
        Pipeline()
    with pytest.raises(ConfigurationError, match="a stage takes a value, nothing takes nothing"):
        Pipeline(nothing)
    with pytest.raises(ConfigurationError, match="two stages with the name same"):
        Pipeline(stage(name="same")(lambda value: value), stage(name="same")(lambda value: value))


class Legacy(msgspec.Struct):
    device_id: str
    temp_f: float


class Older(msgspec.Struct, rename={"device_id": "id"}):
    device_id: str
    temp_f: float
    unit: str


class Reading(msgspec.Struct, tag="reading", tag_field="type"):
    device: str
    celsius: float


class Status(msgspec.Struct, tag="status", tag_field="type"):
    device: str


def test_formats_are_told_apart_by_tag_and_shape() -> None:
    values = [Legacy("a", 1.0), Older("a", 2.0, "F"), Reading("b", 3.0), Status("c")]
    formats = Formats(Legacy, Older, Reading, Status)
    shuffled = random.Random(1).sample(values, 4)
    assert [formats(msgspec.json.encode(value)) for value in shuffled * 2] == shuffled * 2
    assert Formats(Legacy)(b'{"device_id": "x", "temp_f": 1, "more": 2}') == Legacy("x", 1.0)
    assert Formats(Reading, Status)(b'{"type": "status", "device": "x"}') == Status("x")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"device_id": "x"}', "field temp_f: it is missing"),
        (b'{"device_id": "x", "temp_f": "hot"}', "field temp_f: Expected `float`, got `str`"),
        (b'{"type": "reading", "device": "x"}', "field celsius: it is missing"),
        (b'{"type": "other"}', "field type: Invalid value 'other'"),
        (b"[1]", "Expected `object`, got `array`"),
        (b"{", "Input data was truncated"),
        (b'{"device_id": "\xff", "temp_f": 1}', "Invalid UTF-8"),
        (None, "the message has no value"),
    ],
)
async def test_a_malformed_message_names_stage_and_field(raw: bytes | None, reason: str) -> None:
    class Message:
        data = raw

    with pytest.raises(Rejected) as found:
        await Pipeline(Formats(Legacy, Reading, Status))(Message())
    assert str(found.value).startswith(f"stage parse: {reason}")


def test_formats_that_cannot_be_told_apart_are_refused() -> None:
    class Twin(msgspec.Struct):
        device_id: str
        temp_f: int

    class Stranger(msgspec.Struct, tag="s", tag_field="kind"):
        x: int

    for types in ((Legacy, Twin), (Reading, Stranger)):
        with pytest.raises(ConfigurationError, match="cannot be told apart"):
            Formats(*types)
    for wrong in ((), (dict,)):
        with pytest.raises(ConfigurationError, match=r"subclasses of msgspec\.Struct"):
            Formats(*wrong)


async def test_a_kafka_worker_writes_what_a_pipeline_emits_and_buries_what_it_rejects(mock_kafka: MockKafka) -> None:
    def check(value: Legacy | Reading) -> Any:
        if value == Reading("gone", 0.0):
            return None
        if isinstance(value, Legacy) and value.temp_f > 1000:
            raise Rejected("above 1000", field="temp_f")
        return value

    @stage(batch=True)
    async def to_rows(values: list[Any]) -> list[Any]:
        return [Emit([{"device": value.device_id}, {"also": 1}]) if isinstance(value, Legacy) else {"r": 1}
                for value in values]  # fmt: skip

    pipeline = Pipeline(Formats(Legacy, Reading), check, to_rows, name="devices")
    topic, sink = KafkaTopic.on(mock_kafka), MemorySink()
    good = [Legacy("a", 1.0), Reading("b", 2.0), Reading("gone", 0.0)]
    bad = [msgspec.json.encode(Legacy("a", 2000.0)), b'{"device_id": 3, "temp_f": 1}']
    topic.produce([*map(msgspec.json.encode, good), *bad])
    worker = topic.worker(pipeline.batch, batch=True, within=0.02, decode=bytes, sink=sink, retries=0)
    async with worker:
        letters = await asyncio.to_thread(topic.dead_letters, 2)
        await wait_until(lambda: sum(topic.committed()) == 5)
    assert worker.declaration.name == "devices"
    found = [row for rows in sink.rows for row in (rows if isinstance(rows, list) else [rows])]
    assert sorted(map(str, found)) == sorted(map(str, [{"device": "a"}, {"also": 1}, {"r": 1}]))
    assert reasons(letters) == {
        bad[0]: "Processing error: stage check: field temp_f: above 1000",
        bad[1]: "Processing error: stage parse: field device_id: Expected `str`, got `int`",
    }
    assert [(each.name, each.received, each.rejected, each.dropped) for each in pipeline.status()] == [
        ("parse", 5, 1, 0),
        ("check", 4, 1, 1),
        ("to_rows", 2, 0, 0),
    ]


async def test_a_pipeline_handles_the_messages_of_a_topic(first_server: EmbeddedServer) -> None:
    from redis.asyncio import Redis

    seen: list[Any] = []
    handlers = Handlers()

    def keep(data: Any) -> None:
        seen.append(data)

    handlers.handler("device.data")(Pipeline(lambda message: message.data, keep))
    client = Redis.from_url(first_server.url)
    worker = TopicWorker(first_server.url)
    worker.include(handlers)
    async with worker:
        await client.rpush("mq:device.data", orjson.dumps({"id": "1", "topic": "device.data", "data": {"n": 1}}))
        await wait_until(lambda: seen == [{"n": 1}])
    await client.aclose()


async def test_the_stages_of_a_worker_are_in_its_metrics(mock_kafka: MockKafka) -> None:
    def positive(message: Any) -> Any:
        if message.data < 0:
            raise Rejected("it is negative")
        return message.data or None

    topic = KafkaTopic.on(mock_kafka)
    topic.produce([1, 0, -1, 2])
    pipeline = Pipeline(positive, stage(name="twice")(lambda n: Emit([n, n])), lambda n: {"n": n}, name="numbers")
    sink = MemorySink()
    async with topic.worker(pipeline.batch, batch=True, within=0.01, sink=sink, http="127.0.0.1:0") as worker:
        await wait_until(lambda: worker.counters.processed == 4)
        assert worker.http_address is not None
        body = (await get(worker.http_address, "/metrics")).body
    labels = f'processor="numbers",queue="{topic.name}",stage='
    for line in (
        f'redis_worker_stage_values_total{{event="received",{labels}"positive"}} 4.0',
        f'redis_worker_stage_values_total{{event="dropped",{labels}"positive"}} 1.0',
        f'redis_worker_stage_values_total{{event="rejected",{labels}"positive"}} 1.0',
        f'redis_worker_stage_values_total{{event="emitted",{labels}"twice"}} 4.0',
    ):
        assert line in body.splitlines()
    assert f'redis_worker_stage_seconds_total{{{labels}"<lambda>"}}' in body


def test_the_stages_of_child_processes_are_added_up() -> None:
    """Also those of a child that has ended, whose successor starts at zero."""
    parent = Metrics()
    for life in (1, 2):
        child = Metrics()
        child.of("raw", "numbers").staged(lambda: [StageStatus("parse", 3, 2, 1, 0, 0, life, 0.5)])  # noqa: B023
        parent.absorb("part#1", orjson.loads(orjson.dumps(child.snapshot())))
        if life == 1:
            parent.retire("part#1")
    [found] = parent.total().queues.values()
    assert found.stages == [StageStatus("parse", 6, 4, 2, 0, 0, 3, 1.0)]
