"""Idle queues: the cost of many in one process, while nothing is pushed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.contenders import Contender, Running, idle_queue, running
from benchmarks.memory import resident
from benchmarks.report import Row
from redis_worker.broker.keys import Keys, topic_list


@dataclass(frozen=True)
class _Goal:
    """The upper bounds of a row: % of a core, commands a second, and connections if they are bounded."""

    cpu: float
    commands: float
    connections: float | None = None

    def __str__(self) -> str:
        connections = "" if self.connections is None else f", {self.connections:,g} connections"
        return f"below {self.cpu:g}%, {self.commands:,g} commands/s{connections}"

    def is_met(self, cpu: float, commands: float, connections: int) -> bool:
        return cpu < self.cpu and commands < self.commands and connections < (self.connections or connections + 1)


_TOPICS, _POOLS = _Goal(1, 50), _Goal(2, 500, 120)


def idle(bench: Bench, topics: int, pools: int, seconds: float, progress: Callable[[str], None]) -> Iterator[Row]:
    """Start workers of so many topics and pools; wait `seconds` once all are ready, and measure for as long."""
    topic_keys = [Keys(topic_list(idle_queue(index))).workers for index in range(topics)]
    pool_keys = [Keys(idle_queue(index)).workers for index in range(pools)]

    def program(what: str, number: int, how: str) -> Contender:
        return Contender(f"{number:,} {what} in one {how}", ("benchmarks.idle_worker", "URL", what, str(number)))

    yield _row(bench, program("topics", topics, "worker"), topic_keys, seconds, _TOPICS, progress)
    yield _row(bench, program("pools", pools, "program"), pool_keys, seconds, _POOLS, progress)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".toml") as file:
        file.write(_plan(pools))
        file.flush()
        served = Contender(f"{pools:,} pools in `serve`", ("redis_worker", "serve", file.name))
        yield _row(bench, served, pool_keys, seconds, _POOLS, progress)


def _plan(pools: int) -> str:
    parts = (
        f'[pools.{queue}]\ninput = "{queue}"\noutput = "{queue}:output"\nprocessor = "sum"\n'
        for queue in map(idle_queue, range(pools))
    )
    return '[redis]\nurl = "${BENCH_URL}"\n' + "".join(parts)


def _row(
    bench: Bench, contender: Contender, keys: list[str], seconds: float, goal: _Goal, progress: Callable[[str], None]
) -> Row:
    bench.redis.flushall()
    begun = time.perf_counter()
    with running(contender, bench.url) as process:
        bench.wait(process, lambda: bench.redis.exists(*keys) == len(keys))
        ready = time.perf_counter() - begun
        time.sleep(seconds)
        before, started = _used(bench, process), time.perf_counter()
        time.sleep(seconds)
        after, took = _used(bench, process), time.perf_counter() - started
        # One of the connections is ours, and one command, the INFO.
        connections = bench.redis.info("clients")["connected_clients"] - 1
        worker, server, commands = ((later - earlier) / took for earlier, later in zip(before, after, strict=True))
        size = resident(process.pid)
    commands -= 2 / took
    progress(f"{contender.name}: {100 * worker:.2f}% of a core, {commands:.0f} commands/s")
    return Row(
        f"idle: {contender.name}",
        f"{100 * worker:.2f}% of a core",
        f"{commands:,.0f} commands/s, {connections} connections, {size:.0f} MB, ready in {ready:.1f} s",
        target=str(goal),
        met=goal.is_met(100 * worker, commands, connections),
        cost=f"server: {100 * server:.1f}% of a core",
    )


def _used(bench: Bench, process: Running) -> tuple[float, float, float]:
    """Return the CPU seconds of worker and server, and the commands of the server, so far."""
    return process.cpu(), bench.server_cpu(), float(bench.redis.info("stats")["total_commands_processed"])
