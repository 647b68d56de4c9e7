"""Topics: messages through a handler, beside tasks through a pool with the same coroutine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

from benchmarks.bench import Bench, Drained
from benchmarks.contenders import Contender, Running, running, worker
from benchmarks.drain import drained_by
from benchmarks.report import Row, rated
from benchmarks.topic_noop import CONCURRENCY
from redis_worker.broker.keys import topic_list

TOPIC = 0.9
_TOPIC, _SETTLED, _FILLED = "bench", "bench:settled", "bench:filled"
_WARM_UP, _PUSH = 500, 1000


def topics(bench: Bench, count: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Drain `count` tasks and as many messages, in turn."""
    name, options = f"a coroutine in a pool, concurrency {CONCURRENCY}", ("--concurrency", str(CONCURRENCY))
    pool = worker(name, "benchmarks.processors:async_noop", *options)
    topic = Contender("the same as a handler of a topic", ("benchmarks.topic_noop", "URL", _TOPIC, _SETTLED))
    tasks, messages = list[Drained](), list[Drained]()
    for number in range(rounds):
        tasks.append(drained_by(bench, pool, count))
        messages.append(_messages(bench, topic, count))
        progress(f"round {number + 1} of {rounds}: {tasks[-1].rate:,.0f} tasks/s, {messages[-1].rate:,.0f} messages/s")
    yield _row(pool, tasks)
    yield _row(topic, messages, tasks)


def _messages(bench: Bench, contender: Contender, count: int) -> Drained:
    bench.redis.flushall()
    with running(contender, bench.url) as process:
        _drain(bench, process, _WARM_UP, 0)
        return _drain(bench, process, count, _WARM_UP)


def _drain(bench: Bench, process: Running, count: int, settled: int) -> Drained:
    redis = bench.redis
    for first in range(0, count, _PUSH):
        numbers = range(first, min(first + _PUSH, count))
        redis.rpush(_FILLED, *(_message(number) for number in numbers))
    worker, server, begun = process.cpu(), bench.server_cpu(), time.perf_counter()
    redis.rename(_FILLED, topic_list(_TOPIC))
    bench.wait(process, lambda: int(redis.get(_SETTLED) or 0) >= settled + count)
    seconds = time.perf_counter() - begun
    cost = (process.cpu() - worker) * 1e6 / count, (bench.server_cpu() - server) * 1e6 / count
    return Drained(count / seconds, cost)


def _message(number: int) -> bytes:
    return b'{"id":"t%d","topic":"bench","data":[%d,2,3],"published_at":%.3f}' % (number, number, time.time())


def _row(contender: Contender, drained: list[Drained], bare: list[Drained] | None = None) -> Row:
    worker, server = (median(costs) for costs in zip(*(each.cost for each in drained), strict=True))
    return rated(
        f"topics: {contender.name}",
        [each.rate for each in drained],
        None if bare is None else [each.rate for each in bare],
        TOPIC,
        cost=f"{worker:.1f}, {server:.1f}",
    )
