"""Daemons and cron jobs of the tests: they report by files, each line a mark."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from redis_worker import Message


def mark(file: str, text: str) -> None:
    with Path(file).open("a") as lines:
        lines.write(f"{text}\n")


def marks(file: str | Path) -> list[str]:
    return Path(file).read_text().split() if Path(file).exists() else []


async def steady(stop: asyncio.Event, marks: str, label: str = "daemon") -> None:
    """Run until told to stop."""
    mark(marks, f"begin:{label}:{os.getpid()}")
    await stop.wait()
    mark(marks, f"end:{label}")


def steady_thread(stop: threading.Event, marks: str, label: str = "thread") -> None:
    """The same, in a thread."""
    mark(marks, f"begin:{label}:{os.getpid()}")
    stop.wait()
    mark(marks, f"end:{label}")


async def fails(stop: asyncio.Event, marks: str, after: float = 0.0) -> None:
    mark(marks, "begin:fails")
    await asyncio.sleep(after)
    raise RuntimeError("no table")


def fails_in_thread(stop: threading.Event, marks: str) -> None:
    mark(marks, "begin:fails")
    raise RuntimeError("no table")


async def fails_once(stop: asyncio.Event, marks: str) -> None:
    mark(marks, "begin:fails_once")
    if len(Path(marks).read_text().split()) == 1:
        raise RuntimeError("not yet")
    await stop.wait()


async def exits(stop: asyncio.Event, marks: str) -> None:
    mark(marks, "begin:exits")
    sys.exit(3)


async def returns(stop: asyncio.Event, marks: str) -> None:
    mark(marks, "begin:returns")


async def blocks(stop: asyncio.Event, seconds: float) -> None:
    """Hold the event loop, once."""
    await asyncio.sleep(0.3)
    time.sleep(seconds)
    await stop.wait()


async def hangs_at_first(stop: asyncio.Event, marks: str) -> None:
    """Hold the event loop for ever, the first time."""
    mark(marks, f"begin:hangs:{os.getpid()}")
    while len(Path(marks).read_text().split()) == 1:
        time.sleep(0.05)
    await stop.wait()


async def stubborn(stop: asyncio.Event, marks: str) -> None:
    """Heed the stop event not at all, and a cancellation only."""
    mark(marks, f"begin:stubborn:{os.getpid()}")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        mark(marks, "cancelled:stubborn")
        raise


def deaf(stop: threading.Event, marks: str) -> None:
    """A thread that never ends."""
    mark(marks, "begin:deaf")
    while True:
        time.sleep(0.05)


async def speaks(stop: asyncio.Event) -> None:
    """Say something in the log of one's own."""
    import logging

    logging.getLogger("shop").warning("the shop is open")
    await stop.wait()


async def tick(marks: str) -> None:
    """A cron job."""
    mark(marks, "tick")


async def stubborn_for_ever(stop: asyncio.Event, marks: str) -> None:
    """Heed nothing at all."""
    mark(marks, f"begin:stubborn:{os.getpid()}")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def tick_at(instant: datetime, marks: str) -> None:
    """A cron job that says which instant it was run for, and where."""
    mark(marks, f"{instant.timestamp():.0f}:{os.getpid()}")


async def fails_to_tick(marks: str) -> None:
    """A cron job that fails."""
    raise RuntimeError("no tick")


class OfItsOwn(BaseException):
    """No Exception, as some libraries have it."""


async def fails_oddly(stop: asyncio.Event, marks: str) -> None:
    mark(marks, "begin:fails")
    raise OfItsOwn("no table")


def fails_oddly_in_thread(stop: threading.Event, marks: str) -> None:
    mark(marks, "begin:fails")
    raise OfItsOwn("no table")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def fails_mutely(stop: asyncio.Event, marks: str) -> None:
    raise Mute


def fails_mutely_in_thread(stop: threading.Event, marks: str) -> None:
    raise Mute


def is_wrapped(stop: threading.Event, marks: str) -> Any:
    """Return a coroutine, as a plain decorator around a coroutine function does."""
    return steady(asyncio.Event(), marks)


def interrupts_in_thread(stop: threading.Event, marks: str) -> None:
    mark(marks, "begin:fails")
    raise KeyboardInterrupt


async def dies_and_leaves(stop: asyncio.Event, marks: str) -> None:
    """Die, and leave a process behind that has all that was open."""
    if (left := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    mark(marks, f"left:{left}")
    os._exit(3)


async def blocks_again_and_again(stop: asyncio.Event, marks: str) -> None:
    """Hold the event loop for most of the time."""
    while not stop.is_set():
        time.sleep(0.8)
        mark(marks, "blocked")
        await asyncio.sleep(0.2)


async def speaks_badly(stop: asyncio.Event, marks: str) -> None:
    """Log what cannot be formatted, or is no UTF-8."""
    import logging

    logger = logging.getLogger("shop")
    logger.warning("number %d", "x")
    logger.warning("file %s", "\udcff", extra={"seconds": 0.5})
    threading.Thread(target=logger.warning, args=("number %d", "x")).start()
    mark(marks, "begin:speaks")
    await stop.wait()


async def blocks_for_ever(stop: asyncio.Event, marks: str) -> None:
    """Hold the event loop."""
    mark(marks, f"begin:blocks:{os.getpid()}")
    while True:
        time.sleep(0.05)


async def waits_for_a_thread(stop: asyncio.Event, marks: str) -> None:
    """Wait for a thread that does not end."""
    mark(marks, "begin:waits")
    await asyncio.to_thread(deaf, threading.Event(), marks)


async def tells_environment(stop: asyncio.Event, marks: str) -> None:
    """What a program that it starts would find."""
    mark(marks, f"{os.environ.get('PYTHONPATH')}:{[name for name in os.environ if name.startswith('REDIS_WORKER_')]}")
    await stop.wait()


async def heeds_message(message: Message) -> None:
    """A handler."""
