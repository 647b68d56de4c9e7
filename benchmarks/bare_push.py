"""The reference of `push --file`: the lines of a file, each by an RPUSH of a pipeline of redis-py's blocking client.

    python -m benchmarks.bare_push URL KEY FILE

It is the fastest that redis-py offers for one RPUSH a task: its asyncio client packs each command in Python.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any

from redis import Redis

_BATCH = 500


def push(redis: Redis, key: str, raws: Iterable[bytes]) -> None:
    """Push `raws`, 500 commands at a time."""
    iterator = iter(raws)
    while batch := list(islice(iterator, _BATCH)):
        pipeline: Any = redis.pipeline(transaction=False)
        for raw in batch:
            pipeline.rpush(key, raw)
        pipeline.execute()


def main() -> None:
    """Push the lines of the file."""
    url, key, path = sys.argv[1:]
    with open(path, "rb") as file, Redis.from_url(url) as redis:
        push(redis, key, (line.rstrip(b"\n") for line in file))


if __name__ == "__main__":
    main()
