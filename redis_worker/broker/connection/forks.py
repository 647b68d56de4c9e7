"""Forks: a child inherits the sockets of its parent, and must neither use them nor say a word on them."""

from __future__ import annotations

import os
from typing import Any, Protocol
from weakref import WeakSet

_STILL_REFERRED_TO: list[Any] = []
"""Transports of the parent: one that is collected in the child has an event loop which they share forget it."""


class Inheritable(Protocol):
    """An object that holds what belongs to one process."""

    def forked(self) -> None:
        """Forget, in the child of a fork, what belongs to the parent."""


_objects: WeakSet[Inheritable] = WeakSet()


def watch_forks(thing: Inheritable) -> None:
    """Have `thing.forked()` called in each child, as long as `thing` lives."""
    _objects.add(thing)


def let_go(connection: Any, *, forked: bool) -> None:
    """Close the socket of a connection of redis-py's whose event loop is the parent's, or closed, and send nothing.

    Its event loop is not asked: a child shares with its parent the kernel's list of what that loop waits for.
    """
    writer = getattr(connection, "_writer", None)
    connection._writer = connection._reader = None  # redis-py would close them when the connection is collected
    if writer is None or not hasattr(writer, "transport"):  # fakeredis has no transport
        return
    transport = writer.transport
    if forked:
        _STILL_REFERRED_TO.append((writer, transport))
    socket = getattr(transport.get_extra_info("socket"), "_sock", None)  # uvloop's cannot be closed by itself
    if socket is not None:
        socket.close()
    # Or they complain, when they are collected, that they were not closed: that of TLS, and the one below it.
    for part in (transport, getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)):
        for name, value in (("_closing", True), ("_closed", True), ("_sock", None)):
            if hasattr(part, name):
                setattr(part, name, value)


def _forked() -> None:
    for thing in list(_objects):
        thing.forked()


os.register_at_fork(after_in_child=_forked)
