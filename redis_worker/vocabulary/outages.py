"""Outages: recurring failures that are logged once each."""

from __future__ import annotations

import time

# The time without a failure that ends an outage, in seconds.
_OVER = 60.0


class Outages:
    """The current outages, by name."""

    def __init__(self) -> None:
        self._seen_at: dict[str, float] = {}

    def begins(self, name: str) -> bool:
        """Record a failure of `name`; return True if it begins an outage."""
        now = time.monotonic()
        last, self._seen_at[name] = self._seen_at.get(name), now
        return last is None or now - last > _OVER
