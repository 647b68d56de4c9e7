"""The bare loop, the reference of the benchmarks: pop a batch, add, write once, with no safety.

    python -m benchmarks.bare_loop URL INPUT OUTPUT BATCH

If the program dies, its popped tasks are lost; any invalid task ends it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson
from redis.asyncio import Redis


async def work(url: str, waiting: str, output: str, batch: int) -> None:
    """Pop and answer tasks until the process is killed."""
    # No socket timeout: redis-py's default of 5 s would interrupt a blocking pop.
    redis: Any = Redis.from_url(url, socket_timeout=None)
    while True:
        tasks = await redis.lpop(waiting, batch)
        if not tasks:
            popped = await redis.blpop(waiting, 1)
            if popped is None:
                continue
            tasks = popped[1:]
        results = {}
        for raw in tasks:
            task = orjson.loads(raw)
            results[task["id"]] = orjson.dumps({"status": "success", "result": sum(task["task"])})
        await redis.hset(output, mapping=results)


def main() -> None:
    """Run the loop, with uvloop if installed, as the worker does."""
    url, waiting, output, batch = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work(url, waiting, output, int(batch)))


def loop_factory() -> Any:
    """Return the factory of uvloop, if installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
