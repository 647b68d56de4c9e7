"""Marks: the deaths of workers, kept in the metadata of a partition's committed offset.

A worker marks a partition as open before it claims the first message, and as closed when it gives the partition up.
A partition that is found open was held by a worker that died. Its successor does not know the guilty message, and
narrows the search: at level 1 it claims few messages beyond the committed offset, at level 2 a single one, while the
process holds no other. A worker that dies at level 2 charges a death to that message.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WINDOWS = (50_000, 64, 1)
"""The most offsets that are claimed beyond the committed one, by level."""

_PREFIX = "redis-worker"
ALONE = len(WINDOWS) - 1
"""The level of one message at a time."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The state of the search in one partition."""

    level: int = 0
    until: int = 0
    """The offset at which the level ends."""
    deaths: int = 0
    """Workers that died while the message at the committed offset was the only one they held."""
    open: bool = False

    def inherited(self, offset: int) -> Mark:
        """Return the mark for the next owner, if `offset` is the committed one."""
        if not self.open:
            return self if self.level and offset < self.until else Mark()
        if self.level == ALONE:
            return replace(self, deaths=self.deaths + 1, open=False)
        return Mark(self.level + 1, offset + WINDOWS[self.level])

    def committed(self, offset: int) -> Mark:
        """Return the mark once a greater `offset` is committed: no death is charged to its message yet."""
        if self.level and offset >= self.until:
            return Mark(open=self.open)
        return replace(self, deaths=0)

    def metadata(self) -> str:
        """Return the mark as metadata of an offset."""
        return f"{_PREFIX} {'open' if self.open else 'closed'} {self.level} {self.until} {self.deaths}"


def read_mark(metadata: str | None) -> Mark:
    """Return the mark in the metadata of a committed offset; an empty one for metadata of other programs."""
    parts = (metadata or "").split(" ")
    if len(parts) != 5 or parts[0] != _PREFIX or not all(part.isdigit() for part in parts[2:]):
        return Mark()
    level, until, deaths = map(int, parts[2:])
    return Mark(min(level, ALONE), until, deaths, parts[1] == "open")
