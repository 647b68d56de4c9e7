"""Signals, ports and compiled sources for each process of tests, however it is started."""

from __future__ import annotations

import compileall
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from redis_worker import embedded
from tests.support import ROOT

# Python ignores these, and restores them in what it starts.
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def restore_signals() -> None:
    """Have signals do again what they do by default, in this process and in all that it starts.

    Scripts start tests with signals ignored (nohup, `trap '' INT`, a job in the background) or blocked, and
    programs inherit both: one that ignores Ctrl-C would be waited for without end.
    """
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def compile_sources() -> None:
    """Compile what the processes of tests import, if that has changed.

    With PYTHONDONTWRITEBYTECODE, which images of containers set, each of a thousand processes would compile it again.
    """
    for folder in ("redis_worker", "tests", "examples", "benchmarks", "mutation"):
        compileall.compile_dir(ROOT / folder, quiet=2)  # where nothing can be written, it returns False


@contextmanager
def writing_bytecode() -> Iterator[None]:
    """Have this process write what it compiles, whatever PYTHONDONTWRITEBYTECODE says."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


# Apart from those of the programs that tests start: these draw from `embedded.PORTS`, whichever test started them.
_PORTS = range(10_000, embedded.PORTS.start)


def keep_to_ports_of_its_own() -> None:
    """Give each process of a run ports of its own: while a server restarts, nobody else may be given its port."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    embedded.PORTS = ports_of(number, count)


def ports_of(number: int, count: int) -> range:
    """Return the ports of one of `count` processes of a run; xdist counts those that replace a crashed one on."""
    size = len(_PORTS) // count
    return _PORTS[number % count * size :][:size]


def free_port(count: int = 1) -> int:
    """Return the first of as many free ports in a row: of those that no client is given as its own."""
    ports = embedded.PORTS[: 1 - count or None]
    for port in random.sample(ports, min(len(ports), 100)):
        if all(_is_free(port + offset) for offset in range(count)):
            return port
    raise AssertionError("no port is free")


def _is_free(port: int) -> bool:
    try:
        socket.create_server((embedded.HOST, port)).close()
    except OSError:
        return False
    return True
