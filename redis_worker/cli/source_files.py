"""Source files, and whether they have changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

_LOOK_EVERY = 0.5
_SKIPPED = ("__pycache__", "node_modules")


class Sources:
    """The Python files in a folder and below, hidden folders left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = self._times()
        self._look_at = 0.0

    def changed(self) -> bool:
        """Whether a file was changed, came or went since the last True. Looks only now and then."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_EVERY
        before, self._seen = self._seen, self._times()
        return self._seen != before

    def _times(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, folders, files in os.walk(self.folder):
            # A virtual environment is often called .venv; looking through it takes longer than all the rest.
            folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
            for name in files:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    try:
                        found[path] = os.stat(path).st_mtime_ns
                    except OSError:
                        continue  # gone between the two
        return found
