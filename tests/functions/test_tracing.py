"""Spans of submissions and runs, joined across processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from redis_worker import Publisher, TaskClient, TaskQueue, TopicWorker, WorkerPool
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.payload import dumps
from tests.support import PATIENCE, CommandProcess, Queue, Topic, wait_until

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is missing: pip install opentelemetry-sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from redis_worker.tracing import Tracing


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def ids(span: ReadableSpan) -> tuple[str, str]:
    return format(span.context.trace_id, "032x"), format(span.context.span_id, "016x")


async def test_a_run_in_another_process_is_the_child_of_its_submission(
    provider: TracerProvider,
    spans: InMemorySpanExporter,
    tasks: TaskQueue,
    queue: Queue,
    server: EmbeddedServer,
    tmp_path: Path,
) -> None:
    @tasks.task
    async def charge(order: int) -> str: ...

    Tracing(provider).instrument(tasks)
    tracer, written = provider.get_tracer("the shop"), tmp_path / "spans"
    env = {"SHOP_URL": server.url, "SHOP_QUEUE": queue.keys.waiting, "SHOP_RESULTS": queue.keys.output}
    env |= {"SHOP_SPANS": str(written)}
    process = CommandProcess("run", "tests.functions.traced:queue", env=os.environ | env)
    try:
        with tracer.start_as_current_span("a request") as request:
            handle = await charge.submit(7)
        trace = format(request.get_span_context().trace_id, "032x")
        assert await handle.result(PATIENCE) == trace
        process.process.terminate()
        await wait_until(lambda: not process.alive)
    finally:
        process.close()
    submitted, _ = spans.get_finished_spans()
    assert (submitted.name, submitted.kind, submitted.parent.span_id) == (
        *("send charge", SpanKind.PRODUCER),
        request.get_span_context().span_id,
    )
    assert ids(submitted)[0] == trace
    runs = [json.loads(line) for line in written.read_text().splitlines()]
    assert [(run["name"], run["parent_id"], run["context"]["trace_id"]) for run in runs] == [
        ("process charge", f"0x{ids(submitted)[1]}", f"0x{trace}")
    ] * 2
    assert [run["attributes"]["redis_worker.attempt"] for run in runs] == [1, 2]
    assert {run["attributes"]["messaging.message.id"] for run in runs} == {handle.id}
    assert [run["status"]["status_code"] for run in runs] == ["ERROR", "UNSET"]


async def test_synchronous_submissions_and_many_at_once(
    provider: TracerProvider, spans: InMemorySpanExporter, tasks: TaskQueue, queue: Queue
) -> None:
    Tracing(provider).instrument(tasks)

    @tasks.task
    def work(number: int) -> int:
        return number

    def submit() -> None:
        with provider.get_tracer("the shop").start_as_current_span("a request"):
            work.submit_many_sync([(1,), (2,)])
        tasks.close_sync()

    await asyncio.to_thread(submit)
    async with tasks.worker():
        await wait_until(lambda: queue.answered(2))
    sent, request, *runs = spans.get_finished_spans()
    assert (sent.parent.span_id, sent.attributes["messaging.batch.message_count"]) == (request.context.span_id, 2)
    assert {run.parent.span_id for run in runs} == {sent.context.span_id}
    assert len(runs) == 2


@pytest.mark.parametrize("given", ["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "nonsense", 7, None])
async def test_a_message_of_any_producer(
    given: object, provider: TracerProvider, spans: InMemorySpanExporter, topic: Topic, server: EmbeddedServer
) -> None:
    name = topic.keys.waiting.removeprefix("mq:")
    worker = TopicWorker(server.url, middleware=[Tracing(provider).around])

    @worker.handler(name)
    async def remind(_: object) -> None: ...

    async with worker, Publisher(server.url) as publisher:
        await publisher.push_raw(name, [dumps({"id": 1, "data": 1, "traceparent": given})])
        await wait_until(spans.get_finished_spans)
    (run,) = spans.get_finished_spans()
    assert (run.name, run.attributes["messaging.destination.name"]) == ("process remind", topic.keys.waiting)
    if given is not None and str(given).startswith("00-"):
        assert run.parent is not None
        assert ids(run)[0] == "a" * 32
    else:
        assert run.parent is None


async def test_messages_and_tasks_of_clients_are_joined_too(
    provider: TracerProvider, spans: InMemorySpanExporter, topic: Topic, queue: Queue, server: EmbeddedServer
) -> None:
    tracing, name = Tracing(provider), topic.keys.waiting.removeprefix("mq:")
    topics = TopicWorker(server.url, middleware=[tracing.around])

    @topics.handler(name)
    async def remind(_: object) -> None: ...

    async def work(arguments: list[int]) -> int:
        return sum(arguments)

    keys = server.url, queue.keys.waiting, queue.keys.output
    pool = WorkerPool(*keys, "list", work, middleware=[tracing.around])
    async with topics, pool, Publisher(server.url) as publisher, TaskClient(*keys) as client:
        tracing.instrument(publisher)
        tracing.instrument(client)
        await publisher.publish(name, 1)
        await publisher.publish_many(name, [2, 3])
        assert await client.run([1, 2]) == 3
        await client.submit_many([[1]])
        await wait_until(lambda: len(spans.get_finished_spans()) == 9)
    finished = spans.get_finished_spans()
    sent = {ids(span): span for span in finished if span.kind == SpanKind.PRODUCER}
    assert sorted(span.attributes["messaging.batch.message_count"] for span in sent.values()) == [1, 1, 1, 2]
    for run in (span for span in finished if span.kind == SpanKind.CONSUMER):
        parent = sent[ids(run)[0], format(run.parent.span_id, "016x")]
        assert parent.attributes["messaging.destination.name"] == run.attributes["messaging.destination.name"]
    await queue.redis.delete(queue.keys.output)


def test_without_the_extra_it_is_one_sentence() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None\nimport redis_worker.tracing"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == (
        "redis_worker.vocabulary.errors.ConfigurationError: tracing needs the extra `otel` "
        "(opentelemetry-api is missing): pip install 'redis-worker[otel]'"
    )
