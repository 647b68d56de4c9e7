"""Processors that worker processes of the tests run: they report by files and wait for files."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from redis_worker import processor


@processor(execution="inline")
def echo(arguments: list[Any]) -> Any:
    return arguments


@processor
async def sleep(arguments: list[Any]) -> Any:
    await asyncio.sleep(arguments[0])
    return arguments[-1]


@processor(execution="thread")
def nap(arguments: list[Any]) -> Any:
    time.sleep(arguments[0])
    return arguments[-1]


@processor
async def gate(arguments: list[Any]) -> Any:
    """Tell that the task runs, wait for the gate to open, tell that it returns."""
    folder = Path(arguments[0])
    with (folder / "running").open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not (folder / "open").exists():
        await asyncio.sleep(0.005)
    (folder / "returned").touch()
    return os.getpid()


@processor(execution="inline")
def killer(arguments: list[Any]) -> Any:
    """Kill the worker, if told so."""
    if arguments[0] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return arguments[0]


@processor(execution="thread")
def slow_killer(arguments: list[Any]) -> Any:
    """Kill the worker when others have started, if told so."""
    time.sleep(0.02)
    return killer(arguments)


@processor(execution="process")
def in_process(arguments: list[Any]) -> Any:
    match arguments[0]:
        case "pid":
            return os.getpid()
        case "sleep":
            time.sleep(arguments[1])
            return "slept"
        case "die":
            os._exit(3)
        case "raise":
            raise ValueError("no")
    return arguments


@processor
async def block(arguments: list[Any]) -> str:
    """Hold the event loop: a busy loop in a coroutine."""
    end = time.monotonic() + arguments[0]
    while time.monotonic() < end:
        sum(range(1000))
    return "done"


@processor
async def block_first(arguments: list[Any]) -> int:
    """Tell that the task runs; hold the event loop for ever if it is the first one that does."""
    with (Path(arguments[0]) / "running").open("a") as file:
        file.write(f"{os.getpid()}\n")
        first = file.tell() == len(f"{os.getpid()}\n")
    while first:
        time.sleep(1)
    return os.getpid()


@processor
async def exit_at_once(arguments: list[Any]) -> None:
    """End the process, as a crash in a C extension does."""
    os._exit(3)


@processor
async def stubborn(arguments: list[Any]) -> None:
    """Ignore every cancellation."""
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            continue


@processor
async def fail_while(arguments: list[Any]) -> int:
    """Fail as long as a file is there."""
    if (Path(arguments[0]) / "fail").exists():
        raise ValueError("not yet")
    return os.getpid()


@processor
async def unreliable(arguments: list[Any]) -> Any:
    await asyncio.sleep(0.002)
    if random.random() < 0.33:
        raise ValueError("bad luck")
    return arguments[0]
