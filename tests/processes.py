"""Processes that tests start: children of this process, and all of a run of the tests; where /proc tells."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

# In the environment of all that a run of the tests starts. It stays with a process that leaves its parent or its group.
_MARK = "TESTS_RUN"


def start_run() -> None:
    """Mark what this process starts from now on."""
    os.environ[_MARK] = secrets.token_hex(8)


def of_run() -> dict[int, str]:
    """Return the commands of the processes that this run has started, by their ids."""
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    found = {}
    for process in _processes():
        try:
            if mark in (process / "environ").read_bytes().split(b"\0") and not _is_helper(command := _command(process)):
                found[int(process.name)] = command
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def runs(process: int) -> bool:
    """Whether it has not ended: one that nobody has waited for is no longer more than a number."""
    try:
        return bool((Path("/proc") / str(process) / "cmdline").read_bytes())
    except OSError:
        return False


def descendants(pid: int) -> set[int]:
    """Return the ids of all processes below `pid`."""
    parents = {int(child): int(parent) for child, parent in map(str.split, _ps("pid=,ppid="))}
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def alive(pids: set[int]) -> set[int]:
    """Return those that run; a zombie that waits for its parent does not."""
    states = dict(line.split() for line in _ps("pid=,stat="))
    return {pid for pid in pids if not states.get(str(pid), "Z").startswith("Z")}


def _ps(columns: str) -> list[str]:
    shown = subprocess.run(["ps", "-A", "-o", columns], capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()


def kill(processes: Iterable[int]) -> None:
    """Kill them, those that have ended meanwhile passed over."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def children() -> set[str]:
    """Return the ids and commands of this process's children."""
    found = set()
    for thread in Path("/proc/self/task").glob("*"):
        try:
            for child in (thread / "children").read_text().split():
                if not _is_helper(command := _command(Path("/proc") / child)):
                    found.add(command)
        except OSError:  # one has ended meanwhile
            continue
    return found


def _processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*")


def _is_helper(command: str) -> bool:
    """Whether it is the one that multiprocessing keeps for the life of a process."""
    return "resource_tracker" in command


def _command(process: Path) -> str:
    return f"{process.name} {(process / 'cmdline').read_bytes().replace(bytes(1), b' ').decode(errors='replace')}"
