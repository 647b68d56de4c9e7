"""A test leaves nothing behind: threads, sockets, tasks of event loops and keys of servers are compared."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis_worker.broker.keys import CRON, EVENTS, PROCESSES, QUEUES, SUPERVISORS, TOPICS
from redis_worker.embedded import EmbeddedServer
from tests.support import ended_in_time

# Seconds in which what ends by itself may do so.
PATIENCE = 30.0
# Registries, which keep a name until somebody removes it.
_REGISTRIES = {QUEUES, TOPICS, SUPERVISORS, PROCESSES, CRON, EVENTS}
# What the names of keys end with that are there only as long as a worker is.
_PASSING = ("workers", "presence", "attempts", "arrived", "begun")
# Tasks that end with their loop: of aiohttp for a connection that its client has just closed, and of asyncio itself.
_OF_OTHERS = ("RequestHandler.start()", "async_generator_athrow", "async_generator_asend")
_tasks: list[str] = []
_cancel_all_tasks: Callable[[asyncio.AbstractEventLoop], None] = asyncio.runners._cancel_all_tasks


def watch_event_loops() -> None:
    """Note, from now on, the tasks that are left when an event loop closes: it cancels them without a word."""

    def noting(loop: asyncio.AbstractEventLoop) -> None:
        if threading.current_thread() is threading.main_thread():
            _tasks.extend(task for task in map(repr, asyncio.all_tasks(loop)) if not any(map(task.count, _OF_OTHERS)))
        _cancel_all_tasks(loop)

    asyncio.runners._cancel_all_tasks = noting


def forget_tasks() -> None:
    """Forget the tasks that have been noted so far."""
    _tasks.clear()


def is_of_a_worker(key: str) -> bool:
    """Return True if a key is there only as long as a worker is."""
    queue, _, kind = key.partition("}:")
    return queue.startswith("{") and (kind.startswith("inflight:") or kind.rpartition(":")[2] in _PASSING)


@contextmanager
def nothing_left(server: EmbeddedServer | None) -> Iterator[None]:
    """Raise AssertionError for what there is afterwards and was not before, on `server` too."""
    forget_tasks()
    threads, sockets = set(threading.enumerate()), _sockets()
    keys = None if server is None else _keys(server)
    yield
    assert not _tasks, f"asyncio tasks left when their event loop closed: {_tasks}"
    left = _in_time(lambda: {thread for thread in set(threading.enumerate()) - threads if _lasts(thread)})
    assert not left, f"threads left: {left}"
    if _sockets() - sockets:
        # Those of objects that nobody closed and nobody holds: their destructors warn here, in the guilty test.
        gc.collect()
        open_still = _in_time(lambda: _sockets() - sockets)
        assert not open_still, f"sockets left: {open_still}"
    if server is not None and keys is not None:
        # The records of cron jobs stay, as the registries do.
        more = {key for key in _keys(server) - keys - _REGISTRIES if not key.startswith(f"{CRON}:")}
        assert not more, f"keys left: {more}"


def _lasts(thread: threading.Thread) -> bool:
    """Return True if the end of the process waits for the thread, or it is of this project."""
    return not thread.daemon or thread.name in ("redis-worker-lease", "redis-worker-client", "redis-worker-watchdog")


def _in_time(find: Callable[[], set]) -> set:
    """Return what `find` returns once that is empty, or after a while: ends take their time."""
    found: set = set()

    def is_empty() -> bool:
        nonlocal found
        found = find()
        return not found

    ended_in_time(is_empty, PATIENCE)
    return found


def _sockets() -> set[str]:
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return set()
    found = set()
    for name in names:
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def _keys(server: EmbeddedServer) -> set[str]:
    """Ask without a client, which is what most tests are about."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"KEYS *\r\n")
        file = connection.makefile("rb")
        count = int(file.readline()[1:])
        return {file.read(int(file.readline()[1:]) + 2)[:-2].decode(errors="replace") for _ in range(count)}
