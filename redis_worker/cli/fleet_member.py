"""A worker of a fleet, as seen from inside: what its parent has told it, and how it tells its parent."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import NamedTuple

# The worker's end of a connection that closes when the parent is gone, however it went.
LIFELINE = "REDIS_WORKER_LIFELINE"
URL = "REDIS_WORKER_FLEET_URL"
NUMBER = "REDIS_WORKER_FLEET_NUMBER"


class Member(NamedTuple):
    """What the parent has told."""

    lifeline: int
    url: str | None
    """The Redis URL it has settled on; None where the worker looks for it itself."""
    number: int | None
    """Which of its workers this is."""

    def say_started(self) -> None:
        """Tell the parent that work has begun."""
        try:
            os.write(self.lifeline, b".")
        except OSError:
            pass  # it is gone, or does not listen

    def end_if_orphaned(self) -> None:
        """End this process and what it has started, if the parent is gone: nobody else does."""
        if not select.select([self.lifeline], [], [], 0)[0]:
            return
        from redis_worker.engine.process_group import end_own_group

        end_own_group()

    def watch_parent(self, gone: Callable[[], None]) -> None:
        """Have `gone` called, in the running loop, when the parent is no more."""
        import asyncio

        loop = asyncio.get_running_loop()

        def hear() -> None:
            loop.remove_reader(self.lifeline)  # it never says anything: this is the end of it
            gone()

        loop.add_reader(self.lifeline, hear)


def member() -> Member | None:
    """What the parent has told; None where there is none, and when asked again.

    It is taken out of the environment: what a processor starts is no worker of this fleet.
    """
    told = [os.environ.pop(name, None) for name in (LIFELINE, URL, NUMBER)]
    lifeline, url, number = told
    return None if lifeline is None else Member(int(lifeline), url, None if number is None else int(number))
