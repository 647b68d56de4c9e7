"""`python -m benchmarks`: measure, and print the figures side by side."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.delays import delays
from benchmarks.drain import drain
from benchmarks.memory import ROUNDS, memory
from benchmarks.pickup import pickup
from benchmarks.report import Row, table
from redis_worker.embedded import EmbeddedServer

PARTS = ("drain", "pickup", "delays", "memory")


def main() -> int:
    """Measure what is asked for; 1 when a target is missed and `--check` was given."""
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
    print(f"\nLoad of the machine before: {busy:.1f}. Other programs cost the worker more than the bare loop.")
    if options.quick:
        print("\nA quick run shows that the benchmark works; its figures mean nothing.")
    return int(options.check and any(row.met is False for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the worker beside a bare loop (docs/benchmarks.md)."
    )
    parser.add_argument("part", nargs="*", help=f"what to measure: {', '.join(PARTS)}; all by default")
    parser.add_argument("--tasks", type=int, default=200_000, help="tasks of a drain (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of drains (default: %(default)s)")
    parser.add_argument("--pushes", type=int, default=500, help="single pushes of pick-up (default: %(default)s)")
    parser.add_argument(
        "--memory-tasks", type=int, default=4_000_000, help="tasks of the memory test (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="end with 1 when a target is missed")
    parser.add_argument("--quick", action="store_true", help="tiny numbers, to see that it works")
    options = parser.parse_args()
    if unknown := set(options.part) - set(PARTS):
        parser.error(f"there is no part {unknown.pop()!r}, but {', '.join(PARTS)}")
    if options.quick:
        options.tasks, options.rounds, options.pushes, options.memory_tasks = 2_000, 1, 20, 8_000
    return options


def _measure(bench: Bench, options: argparse.Namespace) -> Iterator[Row]:
    parts = options.part or PARTS
    if "drain" in parts:
        yield from drain(bench, options.tasks, options.rounds, _say)
    if "pickup" in parts:
        yield from pickup(bench, options.pushes, _say)
    if "delays" in parts:
        yield from delays(bench, 1000 if not options.quick else 50, 5.0 if not options.quick else 0.5, _say)
    if "memory" in parts:
        yield from memory(bench, options.memory_tasks // ROUNDS, _say)


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


def _say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
