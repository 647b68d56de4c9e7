"""The reference of slow tasks among fast ones: threads that each pop one task, and run it, with no safety.

    python -m benchmarks.bare_threads URL INPUT OUTPUT THREADS

No task is taken ahead: a task starts late only where the machine, or the server, is late.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import orjson
from redis import Redis

from benchmarks.processors import timed_wait


def work(url: str, waiting: str, output: str) -> None:
    """Pop and answer tasks until the process is killed."""
    redis: Any = Redis.from_url(url, socket_timeout=None)
    while True:
        task = orjson.loads(redis.blpop(waiting)[1])
        result = {"status": "success", "result": timed_wait(task["task"])}
        redis.hset(output, task["id"], orjson.dumps(result))


if __name__ == "__main__":
    *names, count = sys.argv[1:]
    threads = [threading.Thread(target=work, args=names) for _ in range(int(count))]
    for thread in threads:
        thread.start()
