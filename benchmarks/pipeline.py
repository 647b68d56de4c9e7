"""The device pipeline: messages per second through all of it, the time of a batch, and CPU and memory at a tenth."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median, quantiles

from confluent_kafka import Producer

from benchmarks.bench import Bench
from benchmarks.contenders import Contender, running
from benchmarks.kafka import TOPIC, Entry, Source, mock, wait
from benchmarks.memory import resident
from benchmarks.report import Row
from examples.device_pipeline.settings import Simulator, read_settings
from examples.device_pipeline.simulator import messages
from examples.device_pipeline.stages import device_pipeline

RATE = 100_000
"""Messages per second through the whole pipeline, in one process."""
BATCH, BATCH_SECONDS = 50, 0.002
"""Messages of a batch, and the longest time that it may take, at the median."""
CPU_SHARE, MEGABYTES = 0.6, 1000.0
"""Of the machine, by worker and Redis at a tenth of the rate; and memory of the worker."""
RECOVERY = 30.0
"""Seconds until nothing waits any more for a consumer that was killed."""
_TICK = 0.02
# How long the brokers wait for a consumer that is silent.
_SESSION, _SHORT = "30s", "10s"
_CONSUMERS = 3


def pipeline(bench: Bench, count: int, rounds: int, seconds: float, progress: Callable[[str], None]) -> Iterator[Row]:
    """Measure each contender `rounds` times on `count` messages, then the worker for `seconds` at a tenth of the rate.

    The brokers are those of KAFKA_BROKERS, with an empty topic `bench` of 4 partitions; by default a mock cluster.
    """
    url = bench.url
    entries = [
        Entry("bare consumer", "bare_kafka"),
        Entry("stages alone, batches of 500", "pipeline_worker", ("none", "500", _SESSION)),
        Entry("into Redis, batches of 50", "pipeline_worker", (url, "50", _SESSION), target=RATE),
        Entry("into Redis, batches of 500", "pipeline_worker", (url, "500", _SESSION)),
    ]
    with ExitStack() as stack:
        source = Source(os.environ.get("KAFKA_BROKERS") or stack.enter_context(mock()).brokers)
        values = _values()
        source.fill(next(values) for _ in range(count))
        for number in range(rounds):
            for entry in entries:
                source.measure(entry, count)
                progress(f"round {number + 1} of {rounds}: pipeline: {entry.name}: {entry.rates[-1]:,.0f}/s")
        yield from (entry.row("pipeline", entries[0]) for entry in entries)
        yield _batch()
        progress(f"pipeline: {RATE // 10:,} messages a second")
        yield from _paced(bench, source, entries[2], count, values, seconds)
        progress(f"pipeline: one of {_CONSUMERS} consumers is killed")
        yield _recovery(source, url, values, _SHORT, restarted=False)
        if "KAFKA_BROKERS" in os.environ:  # the mock cluster does not know a static member again
            yield _recovery(source, url, values, _SESSION, restarted=True)


def _values() -> Iterator[bytes]:
    source = messages(Simulator(devices=50, invalid=0.0), random.Random(1))
    return (message.value for message in source)


def _batch() -> Row:
    """Measure the stages with batches, without Kafka and sinks."""
    stages, _ = device_pipeline(read_settings())
    values, times = _values(), []

    async def measure() -> None:
        for _ in range(2000):
            batch = [next(values) for _ in range(BATCH)]
            started = time.perf_counter()
            await stages.run(batch)
            times.append(time.perf_counter() - started)

    asyncio.run(measure())
    found = median(times)
    return Row(
        f"pipeline: a batch of {BATCH} through the stages, median",
        f"{found * 1000:.2f} ms",
        f"p99 {quantiles(times, n=100)[98] * 1000:.2f} ms",
        target=f"at most {BATCH_SECONDS * 1000:g} ms",
        met=found <= BATCH_SECONDS,
    )


def _paced(
    bench: Bench, source: Source, entry: Entry, before: int, values: Iterator[bytes], seconds: float
) -> Iterator[Row]:
    """Measure the CPU of worker and Redis, and the worker's memory, at a tenth of the rate."""
    group, rate = secrets.token_hex(4), RATE // 10
    total = int(rate * seconds)
    producer = Producer({"bootstrap.servers": source.brokers, "log_level": 0, "linger.ms": 5})
    with source.committed(group) as committed, running(entry.contender(group), source.brokers) as process:
        wait(process, committed, before)
        started, worker, server = time.monotonic(), process.cpu(), bench.server_cpu()
        for sent in range(total):
            if sent % (rate * _TICK) == 0:
                producer.poll(0)
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
            producer.produce(TOPIC, next(values), partition=sent % 4)
        producer.flush()
        wait(process, committed, before + total)
        elapsed = time.monotonic() - started
        used = (process.cpu() - worker, bench.server_cpu() - server)
        memory = resident(process.pid)
    share = sum(used) / elapsed / (os.cpu_count() or 1)
    yield Row(
        "pipeline: CPU of worker and Redis at a tenth of the rate",
        f"{share:.0%} of the machine",
        f"{total / elapsed:,.0f}/s, worker {used[0] / elapsed:.0%}, Redis {used[1] / elapsed:.0%} of a core",
        target=f"at most {CPU_SHARE:.0%}",
        met=share <= CPU_SHARE,
    )
    yield Row(
        "pipeline: memory of the worker",
        f"{memory:.0f} MB",
        target=f"at most {MEGABYTES:.0f} MB",
        met=memory <= MEGABYTES,
    )


def _recovery(source: Source, url: str, values: Iterator[bytes], session: str, *, restarted: bool) -> Row:
    """Kill one of three consumers while messages arrive, and measure until all that wait for it are committed.

    `restarted`: it is a static member, and its supervisor starts it again; its partitions wait for it.
    """
    group, topic_end = secrets.token_hex(4), source.end()

    def member(number: int) -> Contender:
        instance = (f"{group}-{number}",) if restarted else ()
        return Entry("recovery", "pipeline_worker", (url, str(BATCH), session, *instance)).contender(group)

    with source.committed(group) as committed, ExitStack() as stack:
        others = [stack.enter_context(running(member(number), source.brokers)) for number in range(1, _CONSUMERS)]
        with running(member(0), source.brokers) as victim:
            wait(victim, committed, topic_end)
            # Each of the three owns a partition before one is killed.
            time.sleep(5)
            source.fill(next(values) for _ in range(RATE // 10))
        killed = time.monotonic()
        if restarted:
            stack.enter_context(running(member(0), source.brokers))
        source.fill(next(values) for _ in range(RATE // 10))
        end = source.end()
        wait(others[0], committed, end)  # all of them: it raises TimeoutError if a message is lost
        took = time.monotonic() - killed
    return Row(
        f"pipeline: recovery, one of {_CONSUMERS} consumers killed" + (", and started again" if restarted else ""),
        f"{took:.1f} s",
        f"session timeout {session}, nothing lost",
        target=f"below {RECOVERY:g} s",
        met=took < RECOVERY,
    )
