"""Forks: a child inherits its parent's sockets, and must neither use nor send anything on them."""

from __future__ import annotations

import os
from typing import Any, Protocol
from weakref import WeakSet

_KEPT_ALIVE: list[Any] = []
"""Transports of the parent: collecting one in the child would unregister it from the shared event loop."""


class Inheritable(Protocol):
    """An object that holds resources of one process."""

    def forked(self) -> None:
        """Drop, in the child of a fork, the parent's resources."""


_owners: WeakSet[Inheritable] = WeakSet()


def watch_forks(owner: Inheritable) -> None:
    """Call `owner.forked()` in each child process, as long as `owner` lives."""
    _owners.add(owner)


def close_silently(connection: Any, *, forked: bool) -> None:
    """Close the socket of a redis-py connection without sending anything.

    Its event loop, the parent's or a closed one, is not involved: a child shares with its parent the kernel's
    list of file descriptors which that loop polls.
    """
    writer = getattr(connection, "_writer", None)
    connection._writer = connection._reader = None  # redis-py would close them on collection
    if writer is None or not hasattr(writer, "transport"):  # fakeredis has no transport
        return
    transport = writer.transport
    if forked:
        _KEPT_ALIVE.append((writer, transport))
    socket = getattr(transport.get_extra_info("socket"), "_sock", None)  # uvloop's cannot be closed directly
    if socket is not None:
        socket.close()
    # Avoids warnings about unclosed transports: that of TLS, and the one below it.
    for part in (transport, getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)):
        for name, value in (("_closing", True), ("_closed", True), ("_sock", None)):
            if hasattr(part, name):
                setattr(part, name, value)


def _forked() -> None:
    for owner in list(_owners):
        owner.forked()


os.register_at_fork(after_in_child=_forked)
