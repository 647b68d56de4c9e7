"""Files that are watched, and whether they have changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_SKIPPED = ("__pycache__", "node_modules")


class Watched:
    """The files that `find` lists, whenever it is called; those that are not there may come."""

    def __init__(self, find: Callable[[], Iterable[str]]) -> None:
        self._find = find
        self._seen = self._times()

    def changed(self) -> bool:
        """Return whether a file was changed, came or went since the last call that returned True."""
        before, self._seen = self._seen, self._times()
        return self._seen != before

    def _times(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for path in self._find():
            try:
                found[path] = os.stat(path).st_mtime_ns
            except OSError:
                continue  # gone between the two, or an editor is about to put it back
        return found


def sources(folder: Path) -> Iterator[str]:
    """Yield the Python files in `folder` and below, hidden folders left out."""
    for place, folders, files in os.walk(folder):
        # A virtual environment is often called .venv; looking through it takes longer than all the rest.
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        yield from (os.path.join(place, name) for name in files if name.endswith(".py"))
