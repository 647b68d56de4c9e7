"""The reference of the sleeping coroutines: the same sleeps in asyncio alone, a task each, without any queue.

    python -m benchmarks.bare_sleeps COUNT CONCURRENCY [nap|in_order|in_random_order]

It prints how many ended in a second; with the name of a sleep, the CPU time of each too, in microseconds.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

from benchmarks import processors
from benchmarks.bare_loop import loop_factory
from benchmarks.contenders import ROOT


async def sleeps(count: int, concurrency: int, name: str = "nap") -> float:
    """Return the rate of `count` sleeps, of which `concurrency` run at once."""
    create_task, sleep = asyncio.get_running_loop().create_task, getattr(processors, name)
    left, running, over = count, set[Any](), asyncio.Event()

    def start(ended: asyncio.Task[Any] | None = None) -> None:
        nonlocal left
        running.discard(ended)
        if left:
            left -= 1
            task = create_task(sleep([]))
            running.add(task)
            task.add_done_callback(start)
        elif not running:
            over.set()

    begun = time.perf_counter()
    for _ in range(min(count, concurrency)):
        start()
    await over.wait()
    return count / (time.perf_counter() - begun)


def measured(count: int, concurrency: int, name: str = "nap") -> float:
    """Return the rate of sleeps in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.bare_sleeps", str(count), str(concurrency), name]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()[0])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        print(runner.run(sleeps(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])))
    if sys.argv[3:]:
        print(f"{time.process_time() / int(sys.argv[1]) * 1e6:.1f} us")
