"""What the soak runs: tasks that are quick, slow, failing, and of each kind of execution; and leaks, to be found."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from redis_worker import Message, Retry, processor

_kept: list[Any] = []


@processor(execution="inline")
def quick(arguments: list[Any]) -> Any:
    """Return its arguments; one in ten fails."""
    return _luck(arguments)


@processor
async def later(arguments: list[Any]) -> Any:
    """Do the same after a while."""
    await asyncio.sleep(random.expovariate(100))
    return _luck(arguments)


@processor(execution="thread")
def in_thread(arguments: list[Any]) -> Any:
    """Do the same in a thread; one in fifty takes longer than it may."""
    time.sleep(0.4 if random.random() < 0.02 else random.expovariate(500))
    return _luck(arguments)


@processor(execution="process")
def in_process(arguments: list[Any]) -> Any:
    """Do the same in a process; one in a hundred ends the process."""
    if random.random() < 0.01:
        os._exit(3)
    return _luck(arguments)


def _luck(arguments: list[Any]) -> Any:
    if random.random() < 0.1:
        raise ValueError(f"bad luck with {arguments}")
    return arguments


async def handle(message: Message) -> None:
    """Handle a message; one in ten fails, one in ten comes again."""
    await asyncio.sleep(random.expovariate(500))
    if (luck := random.random()) < 0.2:
        raise Retry(0.05) if luck < 0.1 else ValueError("bad luck")


async def handle_many(messages: Sequence[Message]) -> None:
    """Handle a batch."""
    await asyncio.sleep(random.expovariate(500))


async def tick() -> None:
    """Be a cron job: collect garbage, so that memory is what is held. A worker does it all the more seldom."""
    gc.collect()


async def leak(stop: asyncio.Event, what: str) -> None:
    """Be a daemon that keeps something, again and again."""
    while not stop.is_set():
        if what == "memory":
            _kept.append(os.urandom(1 << 20))
        elif what == "descriptors":
            _kept.append(socket.socket())
        else:
            threading.Thread(target=stop_never, daemon=True).start()
        await asyncio.sleep(0.2)


def stop_never() -> None:
    """Hold a thread for ever."""
    threading.Event().wait()
