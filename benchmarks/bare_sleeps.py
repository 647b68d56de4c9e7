"""The reference of the sleeping coroutines: the same sleeps in asyncio alone, a task each, without any queue.

    python -m benchmarks.bare_sleeps COUNT CONCURRENCY

It prints how many ended in a second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from benchmarks.bare_loop import loop_factory
from benchmarks.processors import nap


async def sleeps(count: int, concurrency: int) -> float:
    """Return the rate of `count` sleeps, of which `concurrency` run at once."""
    create_task = asyncio.get_running_loop().create_task
    left, running, over = count, set[Any](), asyncio.Event()

    def start(ended: asyncio.Task[Any] | None = None) -> None:
        nonlocal left
        running.discard(ended)
        if left:
            left -= 1
            task = create_task(nap([]))
            running.add(task)
            task.add_done_callback(start)
        elif not running:
            over.set()

    begun = time.perf_counter()
    for _ in range(min(count, concurrency)):
        start()
    await over.wait()
    return count / (time.perf_counter() - begun)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        print(runner.run(sleeps(*map(int, sys.argv[1:]))))
