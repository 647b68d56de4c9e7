"""What a process of tests is given at its start, however it is started: signals, and ports."""

from __future__ import annotations

import os
import random
import signal
import socket

from redis_worker import embedded

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


def keep_to_ports_of_its_own() -> None:
    """Give each process of a run a part of the ports: while a server restarts, no other may be given its port."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % count
    size = len(embedded.PORTS) // count
    embedded.PORTS = embedded.PORTS[number * size : (number + 1) * size]


def free_port(count: int = 1) -> int:
    """Return the first of as many free ports in a row: of those that no client is given as its own."""
    for port in random.sample(embedded.PORTS[: 1 - count or None], 100):
        if all(_is_free(port + offset) for offset in range(count)):
            return port
    raise AssertionError("no port is free")


def _is_free(port: int) -> bool:
    try:
        socket.create_server((embedded.HOST, port)).close()
    except OSError:
        return False
    return True
