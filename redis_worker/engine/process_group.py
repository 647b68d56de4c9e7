"""Process groups: each child leads one, so that it and its children can be killed together."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

# The interval of checks for the parent, in seconds, without a sentinel.
_CHECK_EVERY = 1.0


def end_group(leader: int) -> None:
    """Kill all processes of the group that `leader` leads, if it exists."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except OSError:
        pass  # the group is empty, or has only zombies


def leave_interrupts_to_parent() -> None:
    """Do nothing on SIGINT. Children get the default action: they would inherit an ignored signal."""
    signal.signal(signal.SIGINT, lambda *_: None)


def end_with(parent: int, sentinel: int | None = None, patience: float = 0.0) -> None:
    """Kill this process and its group `patience` seconds after the end of the process `parent`.

    `sentinel` is a descriptor that may report that end sooner. A thread watches, because an event loop may hang.
    PR_SET_PDEATHSIG does not suffice: it kills only this process, and as soon as the thread that started it ends.
    """

    parent_end = select.poll()
    if sentinel is not None:
        parent_end.register(sentinel, select.POLLIN)

    def watch() -> None:
        while os.getppid() == parent and not parent_end.poll(_CHECK_EVERY * 1000):
            pass
        time.sleep(patience)
        end_own_group()

    threading.Thread(target=watch, name="redis-worker parent", daemon=True).start()


def end_own_group() -> None:
    """Kill this process and, if it leads a group, the whole group."""
    if os.getpgrp() == os.getpid():
        end_group(os.getpid())
    os._exit(1)
