"""Memory: the size of an idle worker, and its growth with the number of tasks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.contenders import OUTPUT, running, worker
from benchmarks.report import Row

IDLE = 60.0
ROUNDS = 10
# The smallest sizes after the rounds of each half are compared: the rest, which the allocator has not returned yet,
# varies by several MB.
FLAT = 2.0

_SETTLE = 1.0

# A worker still warms up until so many tasks: fewer cannot show a leak.
_WARM = 400_000


def memory(bench: Bench, count: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Measure the resident memory of an idle worker, and after each `count` tasks."""
    contender = worker("sum", "sum")
    bench.redis.flushall()
    with running(contender, bench.url) as process:
        bench.wait(process, bench.idles)
        time.sleep(_SETTLE)
        idle = resident(process.pid)
        yield Row("memory: idle worker", f"{idle:.1f} MB", "", None, f"below {IDLE:g} MB", idle < IDLE)
        sizes: list[float] = []
        for number in range(1, ROUNDS + 1):
            bench.fill(count)
            bench.drain(process, count)
            bench.verify(contender, count)
            bench.redis.delete(OUTPUT)
            time.sleep(_SETTLE)
            sizes.append(resident(process.pid))
            progress(f"after {number * count:,} tasks: {sizes[-1]:.1f} MB")
        yield from _rows(ROUNDS * count, sizes)


def _rows(done: int, sizes: list[float]) -> Iterator[Row]:
    first, second = sizes[: ROUNDS // 2], sizes[ROUNDS // 2 :]
    growth = min(second) - min(first)
    warm = done >= _WARM
    for half, which in ((first, "first"), (second, "second")):
        last = half is second
        yield Row(
            f"memory: {which} half of {done:,} tasks",
            f"{min(half):.1f} MB",
            f"to {max(half):.1f} MB" + (f", {growth:+.1f} MB" if last else ""),
            None,
            f"at most {FLAT:+g} MB" if last and warm else "",
            growth <= FLAT if last and warm else None,
        )


def resident(pid: int) -> float:
    """Return the resident memory of a process, in megabytes (10**6 bytes)."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmRSS:"))
        kilobytes = int(line.split()[1])
    else:  # macOS
        kilobytes = int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)]))
    return kilobytes * 1024 / 1e6
