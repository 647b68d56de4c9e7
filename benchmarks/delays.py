"""Delays: the lateness of delayed tasks and messages, run by four workers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median, quantiles

import orjson

from benchmarks.bench import Bench
from benchmarks.contenders import INPUT, OUTPUT, Contender, running, worker
from benchmarks.report import Row
from redis_worker import TaskClient
from redis_worker.broker.keys import Keys, topic_list

LATE = 0.100
_WORKERS = 4
_TOPIC = "bench"


@dataclass(frozen=True)
class _Kind:
    name: str
    contender: Contender
    keys: Keys


def delays(bench: Bench, count: int, longest: float, progress: Callable[[str], None]) -> Iterator[Row]:
    """Delay `count` tasks and messages by up to `longest` seconds each, and measure when each starts."""
    topic = ("benchmarks.topic_worker", "URL", _TOPIC, OUTPUT)
    for kind in (
        _Kind("tasks", worker("clock", "benchmarks.processors:clock", "--concurrency", "20"), Keys(INPUT, OUTPUT)),
        _Kind("messages", Contender("topic", topic), Keys(topic_list(_TOPIC), OUTPUT)),
    ):
        late = sorted(_lateness(bench, kind, count, longest))
        p99 = quantiles(late, n=100, method="inclusive")[98]
        early = sum(seconds < 0 for seconds in late)
        progress(f"{kind.name}: p99 {p99 * 1000:.1f} ms, {early} early")
        spread = f"median {median(late) * 1000:.1f} ms, {early} early"
        name = f"delayed {kind.name}, lateness at p99"
        yield Row(name, f"{p99 * 1000:.1f} ms", spread, None, f"below {LATE * 1000:g} ms", p99 < LATE and not early)


def _lateness(bench: Bench, kind: _Kind, count: int, longest: float) -> list[float]:
    """Return the seconds from the due time to the start of each. Raises AssertionError if one is missing."""
    redis = bench.redis
    redis.flushall()
    with ExitStack() as stack:
        processes = [stack.enter_context(running(kind.contender, bench.url)) for _ in range(_WORKERS)]
        bench.wait(processes[0], lambda: redis.zcard(kind.keys.workers) == _WORKERS)
        due = asyncio.run(_push_delayed(bench, kind, count, longest))
        bench.wait(processes[0], lambda: redis.hlen(OUTPUT) == count)
        begun = {id.decode(): _time(raw) for id, raw in redis.hgetall(OUTPUT).items()}
    assert begun.keys() == due.keys()
    # The server runs on this machine and reads the same clock; due times are rounded up to the millisecond.
    return [begun[id] - due[id] for id in due]


async def _push_delayed(bench: Bench, kind: _Kind, count: int, longest: float) -> dict[str, float]:
    """Push all with a delay. Return the earliest due time of each."""
    due = {}
    async with TaskClient(bench.url, kind.keys.waiting, OUTPUT) as client:
        for number in range(count):
            id, delay = f"t{number}", random.uniform(0.0, longest)
            due[id] = time.time() + delay
            raw = b'{"id":"%b","task":[],"data":null}' % id.encode()  # valid as a task and as a message
            await client.push_raw([raw], delay=delay)
    return due


def _time(raw: bytes) -> float:
    value = orjson.loads(raw)
    return float(value["result"] if isinstance(value, dict) else value)
