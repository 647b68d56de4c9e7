"""Watched files, and the detection of their changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_SKIPPED = ("__pycache__", "node_modules")


class Watched:
    """The files that `find` lists at each call, including missing ones, which may appear."""

    def __init__(self, find: Callable[[], Iterable[str]]) -> None:
        self._find = find
        self._seen = self._times()

    def changed(self) -> bool:
        """Return True if a file changed, appeared or disappeared since the last call that returned True."""
        before, self._seen = self._seen, self._times()
        return self._seen != before

    def _times(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for path in self._find():
            try:
                found[path] = os.stat(path).st_mtime_ns
            except OSError:
                continue  # removed since it was listed, or an editor is replacing it
        return found


def sources(folder: Path) -> Iterator[str]:
    """Yield the Python files in `folder` and below, without hidden folders."""
    for place, folders, files in os.walk(folder):
        # A virtual environment, often called .venv, takes longer to search than all the rest.
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        yield from (os.path.join(place, name) for name in files if name.endswith(".py"))
