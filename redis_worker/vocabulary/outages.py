"""Troubles that are met again and again as long as they last, and of which one log line is enough."""

from __future__ import annotations

import time

# What was not met for so long, in seconds, was over meanwhile.
_OVER = 60.0


class Outages:
    """The troubles that last, by a name for each."""

    def __init__(self) -> None:
        self._met: dict[str, float] = {}

    def begins(self, name: str) -> bool:
        """Return True when the trouble `name` is met for the first time, or for the first time after it was over."""
        now = time.monotonic()
        before, self._met[name] = self._met.get(name), now
        return before is None or now - before > _OVER
