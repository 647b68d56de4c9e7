"""Jobs for the tests of cron, and a process that runs one: python -m tests.cron_jobs URL SETTINGS [SPEED]."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import signal
import sys
import threading
import time
from datetime import datetime
from typing import Any

import redis

from redis_worker.broker.cron import CronStore
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings, Push
from redis_worker.vocabulary.errors import Reject, Retry

BRAND = contextvars.ContextVar("brand", default="none")

calls: list[Any] = []
"""What the jobs of this process have noted."""
gate = threading.Event()
"""Opened by a test to let a job end."""


def note(at: datetime, url: str, key: str, seconds: float = 0.0) -> None:
    """Note in Redis what it was run for, and when; take so many seconds."""
    with redis.Redis.from_url(url) as client:
        client.rpush(key, json.dumps([at.timestamp(), "begin", os.getpid()]))
        time.sleep(seconds)
        client.rpush(key, json.dumps([at.timestamp(), "end", os.getpid()]))


async def remember(at: datetime) -> None:
    calls.append(at)


async def slow(at: datetime) -> None:
    calls.append(("begin", at))
    while not gate.is_set():
        await asyncio.sleep(0.01)
    calls.append(("end", at))


async def for_ever() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        calls.append("cancelled")


def stubborn() -> None:
    calls.append("begin")
    gate.wait(60)
    calls.append("end")


def fail() -> None:
    calls.append("call")
    raise ValueError("out of\ncheese")


async def recover() -> None:
    calls.append("call")
    if len(calls) < 3:
        raise ValueError("not yet")


def reject() -> None:
    calls.append("call")
    raise Reject("never")


def once_more() -> None:
    calls.append("call")
    if len(calls) < 2:
        raise Retry("please", delay=0)


def leave() -> None:
    sys.exit("gone")


def brand(word: str, *, end: str = "!") -> None:
    calls.append((BRAND.get(), word + end))


def two(at: datetime, other: int) -> None: ...


def by_name(*, what: str) -> None: ...


not_async = lambda: remember(datetime.now())  # noqa: E731


async def main(url: str, settings: JobSettings, speed: float) -> None:
    """`speed`: how fast the clock of this machine goes, which shows a time far off."""
    real = time.time
    time.time = lambda: real() * speed + 86_400.0 * (speed != 1)
    store = CronStore(url, lease=4.0, elapsed=lambda: time.monotonic() * speed)
    job = CronJob(settings, store)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, job.stop)
    try:
        await job.run()
    finally:
        await store.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
    said = json.loads(sys.argv[2])
    if said.get("push"):
        said["push"] = Push(**said["push"])
    asyncio.run(main(sys.argv[1], JobSettings(**said), float(sys.argv[3])))
