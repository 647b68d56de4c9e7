"""Submitting: many tasks, many messages, a file, and messages one by one, beside redis-py with the same bytes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks.bare_loop import loop_factory
from benchmarks.bare_push import push
from benchmarks.bench import Bench
from benchmarks.contenders import INPUT, OUTPUT, ROOT
from benchmarks.report import Row, rated
from redis_worker import Publisher, TaskClient

MANY = 2.0
FILE = 1.5
ONE = 0.9
_TOPIC = "bench"
_LIST = f"mq:{_TOPIC}"
# A key for the references.
_BARE = "bench:bare"
# Share of the tasks that are pushed one by one.
_LONE = 50


def submit(bench: Bench, count: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Submit `count` tasks, and as many messages, and a fiftieth of them one by one, in each way, `rounds` times."""
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, rate in _round(bench, count):
            rates.setdefault(name, []).append(rate)
        progress(f"round {number + 1} of {rounds}: {', '.join(f'{all[-1]:,.0f}/s' for all in rates.values())}")
    names = list(rates)
    for bare, name, goal in zip(names[::2], names[1::2], (MANY, MANY, FILE, ONE), strict=True):
        yield rated(f"submit: {bare}", rates[bare])
        yield rated(f"submit: {name}", rates[name], rates[bare], goal)


def _round(bench: Bench, count: int) -> Iterator[tuple[str, float]]:
    """Yield names and rates, each way after its reference."""
    bench.redis.flushall()
    data = [[number, 2, 3] for number in range(count)]
    submitted = count / _on_loop(_submit_many(bench.url, data))
    tasks = bench.redis.lrange(INPUT, 0, -1)
    yield "pipelined RPUSH of tasks", _pipelined(bench, tasks)
    yield "submit_many", submitted
    published = count / _on_loop(_publish_many(bench.url, data))
    yield "pipelined RPUSH of messages", _pipelined(bench, bench.redis.lrange(_LIST, 0, -1))
    yield "publish_many", published
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.jsonl"
        path.write_bytes(b"".join(task + b"\n" for task in tasks))
        bare = ("benchmarks.bare_push", bench.url, _BARE, str(path))
        yield "pipelined RPUSH of a file", _by_command(bench, count, *bare)
        command = ("redis_worker", "push", "--url", bench.url, "--input", _BARE, "--file", str(path))
        yield "push --file", _by_command(bench, count, *command)
    lone = tasks[: max(1, count // _LONE)]
    yield "an awaited RPUSH each", len(lone) / _on_loop(_push_each(bench.url, lone))
    yield "publish, one by one", len(lone) / _on_loop(_publish_each(bench.url, data[: len(lone)]))


def _pipelined(bench: Bench, raws: Sequence[bytes]) -> float:
    bench.redis.delete(_BARE)
    begun = time.perf_counter()
    push(bench.redis, _BARE, raws)
    return len(raws) / (time.perf_counter() - begun)


def _by_command(bench: Bench, count: int, *command: str) -> float:
    """Return the rate of a command, its start included."""
    bench.redis.delete(_BARE)
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - begun
    assert bench.redis.llen(_BARE) == count
    return count / seconds


def _on_loop(measure: Coroutine[Any, Any, float]) -> float:
    """Return what `measure` measures, on the event loop of the contenders."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(measure)


async def _submit_many(url: str, data: Sequence[Any]) -> float:
    async with TaskClient(url, INPUT, OUTPUT) as client:
        return await _seconds(client.delete(["connected"]), client.submit_many(data))


async def _publish_many(url: str, data: Sequence[Any]) -> float:
    async with Publisher(url) as publisher:
        return await _seconds(publisher.publish("other", None), publisher.publish_many(_TOPIC, data))


async def _push_each(url: str, raws: Sequence[bytes]) -> float:
    async with Redis.from_url(url) as redis:

        async def each() -> None:
            for raw in raws:
                await redis.rpush(_BARE, raw)

        return await _seconds(redis.ping(), each())


async def _publish_each(url: str, data: Sequence[Any]) -> float:
    async with Publisher(url) as publisher:

        async def each() -> None:
            for item in data:
                await publisher.publish(_TOPIC, item)

        return await _seconds(publisher.publish("other", None), each())


async def _seconds(connect: Awaitable[Any], work: Awaitable[Any]) -> float:
    """Return the time of `work`, on a connection that `connect` has opened."""
    await connect
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun
