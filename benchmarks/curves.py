"""The command `python -m benchmarks.curves`: rates against size, concurrency, backlog and workers, as SVG for docs/.

Drawing needs the extra `bench` (matplotlib).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.contenders import INPUT, OUTPUT, ROOT, Contender, bare_loop, running, worker
from benchmarks.drawing import Curve, Picture, draw
from redis_worker.embedded import EmbeddedServer

_FOLDER = ROOT / "docs" / "performance"
_TASKS = 60_000
# Bytes of the tasks of one drain, at most.
_BYTES = 300_000_000


@dataclass(frozen=True)
class Load:
    """What lies in the queue, and how many results are waited for."""

    waiting: int
    measured: int
    padding: int = 0


_Rate = Callable[[str, Sequence[Contender], Load], float]


def payload(rate: _Rate, scale: float) -> Picture:
    """Return the rate against the size of a task."""
    sizes = (60, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
    contenders = (("this worker, sum", worker("sum", "sum")), ("a bare loop without promises", bare_loop()))
    curves = []
    for title, contender in contenders:
        points = []
        for size in sizes:
            count = int(min(_TASKS, _BYTES / size / 3) * scale)
            points.append((size, rate(f"{title}, {size:,} bytes", [contender], Load(count, count, max(0, size - 60)))))
        curves.append(Curve(title, points))
    return Picture("payload", "Size of a task", "bytes", curves, log=True)


def concurrency(rate: _Rate, scale: float) -> Picture:
    """Return the rate against the concurrency of coroutines and of threads."""
    kinds = (
        ("coroutines", ("benchmarks.processors:async_noop",), (1, 4, 16, 64, 256, 1_000, 10_000)),
        ("functions in threads", ("benchmarks.processors:noop", "--execution", "thread"), (1, 2, 4, 8, 16, 32)),
    )
    count = int(_TASKS * scale)
    curves = []
    for title, arguments, numbers in kinds:
        points = []
        for number in numbers:
            contender = worker(title, *arguments, "--concurrency", str(number))
            points.append((number, rate(f"{title}, {number:,} at once", [contender], Load(count, count))))
        curves.append(Curve(title, points))
    return Picture("concurrency", "Concurrency", "tasks at once", curves)


def backlog(rate: _Rate, scale: float) -> Picture:
    """Return the rate against the number of tasks that wait."""
    points = []
    for waiting in (10_000, 100_000, 1_000_000, 3_000_000):
        load = Load(int(waiting * scale), int(min(waiting, 2 * _TASKS) * scale))
        points.append((waiting, rate(f"sum, {waiting:,} waiting", [worker("sum", "sum")], load)))
    return Picture("backlog", "Waiting tasks", "tasks in the queue", [Curve("this worker, sum", points)])


def workers(rate: _Rate, scale: float) -> Picture:
    """Return the rate against the number of worker processes on one queue."""
    kinds = (
        ("sum", ("sum",), 4 * _TASKS),
        ("1 ms of computing each", ("benchmarks.processors:busy", "--execution", "inline"), _TASKS // 15),
    )
    curves = []
    for title, arguments, tasks in kinds:
        points = []
        for number in (1, 2, 4, 8, 16):
            contenders = [worker(title, *arguments)] * number
            count = int(tasks * scale)
            points.append((number, rate(f"{title}, {number} workers", contenders, Load(count, count))))
        curves.append(Curve(title, points))
    return Picture("workers", f"Worker processes on {os.cpu_count()} cores", "processes", curves, log=True)


_PICTURES: dict[str, Callable[[_Rate, float], Picture]] = {
    "payload": payload,
    "concurrency": concurrency,
    "backlog": backlog,
    "workers": workers,
}


def main() -> int:
    """Measure, print the points, and write the pictures. Return the exit code."""
    options = _options()
    if importlib.util.find_spec("matplotlib") is None:
        print("drawing needs matplotlib: pip install 'redis-worker[bench]'", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for picture in _measured(options):
        for curve in picture.curves:
            print(f"{picture.name}: {curve.title}: {', '.join(f'{x:,} {y:,.0f}/s' for x, y in curve.points)}")
        draw(picture, options.out / f"{picture.name}.svg")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.curves", description="Draw curves (docs/performance.md)."
    )
    parser.add_argument("picture", nargs="*", help=f"some of {', '.join(_PICTURES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="drains of each point (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=_FOLDER, help="the folder of the SVG files (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="use tiny numbers, to test the benchmark itself")
    options = parser.parse_args()
    if unknown := set(options.picture) - set(_PICTURES):
        parser.error(f"unknown picture {unknown.pop()!r}, use some of {', '.join(_PICTURES)}")
    return options


def _measured(options: argparse.Namespace) -> Iterator[Picture]:
    with EmbeddedServer() as server:
        bench = Bench(server.url)

        def rate(name: str, contenders: Sequence[Contender], load: Load) -> float:
            found = median(_drained(bench, contenders, load) for _ in range(1 if options.quick else options.rounds))
            print(f"{name}: {found:,.0f}/s", file=sys.stderr, flush=True)
            return found

        try:
            for name in options.picture or _PICTURES:
                yield _PICTURES[name](rate, 0.001 if options.quick else 1.0)
        finally:
            bench.close()


def _drained(bench: Bench, contenders: Sequence[Contender], load: Load) -> float:
    """Return the rate at which the contenders, side by side, drain a load."""
    with ExitStack() as stack:
        first = stack.enter_context(bench.warmed_up(contenders[0]))
        for contender in contenders[1:]:
            stack.enter_context(running(contender, bench.url))
        bench.wait(first, lambda: bench.redis.info("clients")["blocked_clients"] >= len(contenders))
        bench.fill(max(1, load.waiting), load.padding)
        measured = max(1, load.measured)
        begun = time.perf_counter()
        bench.redis.rename("bench:filled", INPUT)
        bench.wait(first, lambda: bench.redis.hlen(OUTPUT) >= measured)
        return float(bench.redis.hlen(OUTPUT)) / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.exit(main())
