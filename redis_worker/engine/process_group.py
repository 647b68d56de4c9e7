"""Process groups: each process that is started leads one, so that it and what it starts can be ended together."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

# How often to look whether the parent is there, in seconds, where nothing tells.
_LOOK_EVERY = 1.0


def end_group(leader: int) -> None:
    """Kill all processes of the group that `leader` leads, as far as there is one."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except OSError:
        pass  # it has no process, or none that is not a zombie


def leave_interrupts_to_parent() -> None:
    """Do nothing on SIGINT. What this process starts has the default: an ignored signal would be inherited."""
    signal.signal(signal.SIGINT, lambda *_: None)


def end_with(parent: int, sentinel: int | None = None, patience: float = 0.0) -> None:
    """Kill this process and its group so many seconds after the end of the process `parent`.

    `sentinel` is a descriptor that may tell that end sooner. A thread does it, for an event loop may hang. It is not
    left to PR_SET_PDEATHSIG: that kills this process alone, and does so when the thread that started it ends.
    """

    looking = select.poll()
    if sentinel is not None:
        looking.register(sentinel, select.POLLIN)

    def watch() -> None:
        while os.getppid() == parent and not looking.poll(_LOOK_EVERY * 1000):
            pass
        time.sleep(patience)
        end_own_group()

    threading.Thread(target=watch, name="redis-worker parent", daemon=True).start()


def end_own_group() -> None:
    """Kill this process and, where it leads a group, all of that."""
    if os.getpgrp() == os.getpid():
        end_group(os.getpid())
    os._exit(1)
