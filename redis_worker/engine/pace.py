"""How far ahead of the free slots it is fair to claim."""

from __future__ import annotations

# Tasks claimed beyond the free slots should start within this time, in seconds: longer, and a fast
# task waits behind a slow one here while another worker idles.
HORIZON = 0.020
_MOST = 2048
_FORGET = 0.9


class Pace:
    """Measures how long tasks take: the longest of late, forgotten little by little."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def note(self, seconds: float) -> None:
        """A task took so many seconds."""
        lately = self._seconds * _FORGET
        self._seconds = seconds if seconds > lately else lately  # max() takes twice as long

    def ahead(self, parallel: int) -> int:
        """How many tasks, beyond those that fill `parallel` slots, will start within the horizon."""
        if self._seconds <= 0.0:
            return 0
        return min(_MOST, int(HORIZON * parallel / self._seconds))
