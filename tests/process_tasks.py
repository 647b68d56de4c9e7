"""Processors that start programs and forks, as jobs of users do; each writes the ids of its processes to files."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from redis_worker import processor


def _note(folder: str, name: str, pid: int) -> None:
    with (Path(folder) / name).open("a") as file:
        file.write(f"{pid}\n")


@processor(execution="process")
def program(arguments: list[Any]) -> int:
    """Run a program that does not end."""
    with subprocess.Popen(["sleep", "600"]) as process:
        _note(arguments[0], "processes", os.getpid())
        _note(arguments[0], "programs", process.pid)
        return process.wait()


@processor(execution="process")
def forks(arguments: list[Any]) -> None:
    """Leave a fork behind, in the same group or, where told so, in one of its own, and be killed."""
    folder, apart = arguments
    if os.fork() == 0:
        if apart:
            os.setsid()
        _note(folder, "programs", os.getpid())
        time.sleep(600)
        os._exit(0)
    while not (Path(folder) / "programs").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


@processor(execution="process")
def fork_that_comes_back(arguments: list[Any]) -> Any:
    """Forget that a fork goes on after this, too."""
    if os.fork() == 0:
        return ["fork", *arguments]
    time.sleep(0.2)
    return arguments


@processor(execution="process")
def signals(arguments: list[Any]) -> str:
    """What a program is born with: the signals that it ignores and blocks."""
    return subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout


@processor(execution="process")
def orphan(arguments: list[Any]) -> int:
    """Leave an orphan behind that soon ends. Returns how many zombies there are, a little later."""
    subprocess.run(["sh", "-c", "sleep 0.05 & exit 0"], check=True)
    time.sleep(0.5)
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            states.append(stat.read_text().rpartition(")")[2].split()[0])
        except OSError:
            continue
    return states.count("Z")


def daemon(stop: threading.Event, folder: str) -> None:
    """A daemon that runs a program and does not listen."""
    program([folder])


@processor(execution="process")
def add(arguments: list[Any]) -> Any:
    return sum(arguments)


async def writes(stop: object, path: str) -> None:
    """A daemon that does one thing."""
    Path(path).write_text("done")


def refuse(arguments: list[Any]) -> None:
    """Refuse with the reason that it is given; a plain function that runs anywhere."""
    raise ValueError(arguments[0])


def noted(arguments: list[Any]) -> str:
    """Note the run in a file of `arguments[0]`, a folder; then do what `arguments[1]` names."""
    folder, way = Path(arguments[0]), arguments[1]
    with (folder / "runs").open("a") as file:
        file.write(f"{arguments[2]}\n")
    if way == "die":
        os._exit(3)
    if way == "hang":
        time.sleep(600)
    while way == "gate" and not (folder / "open").exists():
        time.sleep(0.01)
    return str(way)
