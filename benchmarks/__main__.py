"""The command `python -m benchmarks`: measures, and prints the figures side by side."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.contenders import ROOT
from benchmarks.delays import delays
from benchmarks.drain import DRAINS, drain
from benchmarks.idle import idle
from benchmarks.kafka import kafka
from benchmarks.long_tasks import long_tasks
from benchmarks.memory import ROUNDS, memory
from benchmarks.pickup import pickup
from benchmarks.pipeline import pipeline
from benchmarks.postgres import postgres
from benchmarks.push import push
from benchmarks.report import Row, Verdict, table
from benchmarks.scaling import backlog, workers
from benchmarks.slow import slow
from benchmarks.structure import structure
from benchmarks.submit import submit
from benchmarks.topics import topics
from redis_worker.embedded import EmbeddedServer

SPEED = (
    *DRAINS,
    "long",
    "topics",
    "slow",
    "workers",
    "backlog",
    "pickup",
    "delays",
    "memory",
    "idle",
    "kafka",
    "postgres",
    "push",
    "pipeline",
    "submit",
)
PARTS = (*SPEED, "structure")


def main() -> int:
    """Run the chosen benchmarks. Return 1 with `--check` if a target is missed beyond noise, else 0."""
    options = _options()
    with EmbeddedServer() as server:
        bench = Bench(server.url)
        try:
            print(_machine(bench, server), flush=True)
            busy = os.getloadavg()[0]
            rows = list(_measure(bench, options))
        finally:
            bench.close()
    print(f"\n{table(rows)}")
    print(f"\nLoad of the machine before: {busy:.1f}. Other programs slow the worker more than the bare loop.")
    if options.quick:
        print("\nA quick run only tests the benchmark; ignore its figures.")
    return int(options.check and any(row.verdict is Verdict.MISSED for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the worker and a bare loop (docs/benchmarks.md)."
    )
    parser.add_argument(
        "part", nargs="*", help=f"a benchmark: {', '.join(PARTS)} (default: all but the last, the size of the code)"
    )
    parser.add_argument("--tasks", type=int, default=200_000, help="tasks of a drain (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of drains (default: %(default)s)")
    parser.add_argument(
        "--pushes", type=int, default=500, help="single pushes of pick-up, in all rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--memory-tasks", type=int, default=4_000_000, help="tasks of the memory test (default: %(default)s)"
    )
    parser.add_argument(
        "--backlog", type=int, default=1_000_000, help="most tasks that wait behind others (default: %(default)s)"
    )
    parser.add_argument(
        "--source", type=Path, default=ROOT, help="the checkout whose structure to examine (default: this one)"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed beyond noise")
    parser.add_argument("--quick", action="store_true", help="use tiny numbers, to test the benchmark itself")
    options = parser.parse_args()
    if unknown := set(options.part) - set(PARTS):
        parser.error(f"unknown benchmark {unknown.pop()!r}, use one of {', '.join(PARTS)}")
    if options.quick:
        options.tasks, options.rounds, options.pushes, options.memory_tasks = 2_000, 1, 20, 8_000
    return options


def _measure(bench: Bench, options: argparse.Namespace) -> Iterator[Row]:
    parts = options.part or SPEED
    for name in (name for name in DRAINS if name in parts):
        yield from drain(name, bench, options.tasks, options.rounds, _print_progress)
    if "long" in parts:
        yield from long_tasks(bench, options.tasks // 2, options.rounds, _print_progress)
    if "topics" in parts:
        yield from topics(bench, options.tasks // 2, min(3, options.rounds), _print_progress)
    if "slow" in parts:
        yield from slow(bench, 1.0 if options.quick else 10.0, min(3, options.rounds), _print_progress)
    if "workers" in parts:
        numbers = (1, 2) if options.quick else (1, 2, 4, 8, 16)
        yield from workers(bench, numbers, options.tasks, min(3, options.rounds), _print_progress)
    if "backlog" in parts:
        sizes = (0, 10_000) if options.quick else (0, options.backlog // 10, options.backlog)
        yield from backlog(bench, sizes, options.tasks // 2, min(3, options.rounds), _print_progress)
    if "pickup" in parts:
        yield from pickup(bench, options.pushes, options.rounds, _print_progress)
    if "delays" in parts:
        yield from delays(bench, 1000 if not options.quick else 50, 5.0 if not options.quick else 0.5, _print_progress)
    if "memory" in parts:
        yield from memory(bench, options.memory_tasks // ROUNDS, _print_progress)
    if "idle" in parts:
        yield from idle(bench, *((20, 5, 1.0) if options.quick else (1000, 100, 15.0)), _print_progress)
    if "kafka" in parts:
        stalled = (1.0, 2.0) if options.quick else (5.0, 15.0)
        yield from kafka(options.tasks * 5, options.rounds, _print_progress, stalled=stalled)
    if "postgres" in parts:
        batches = [(500, 4), (5000, 1)] if options.quick else [(500, 100), (5000, 10)]
        yield from postgres(batches, options.rounds, _print_progress)
    if "push" in parts:
        yield from push(bench.url, 1.0 if options.quick else 20.0, _print_progress)
    if "pipeline" in parts:
        seconds = 1.0 if options.quick else 15.0
        yield from pipeline(bench, options.tasks * 2, options.rounds, seconds, _print_progress)
    if "submit" in parts:
        yield from submit(bench, options.tasks, options.rounds, _print_progress)
    if "structure" in parts:
        yield from structure(options.source.resolve(), bench.url)


def _machine(bench: Bench, server: EmbeddedServer) -> str:
    info = bench.redis.info("server")
    name, version = ("valkey", info["valkey_version"]) if "valkey_version" in info else ("redis", info["redis_version"])
    return (
        f"{name} {version} ({server.binary}), Python {platform.python_version()}, {_installed('uvloop')}, "
        f"{_installed('redis')} (client), {_installed('hiredis')}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}"
    )


def _installed(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def _print_progress(text: str) -> None:
    """Print progress to stderr, apart from the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
