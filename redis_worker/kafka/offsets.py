"""The offsets of a partition's messages: which are claimed, and how far all are settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any


class Offsets:
    """The claimed messages of one partition. Offsets may have gaps: of compacted topics, and of transactions."""

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        """Claimed offsets in order, from the first one that is not settled."""
        self._settled: dict[int, Any] = {}
        """Values of settled offsets behind one that is not."""
        self.next: int | None = None
        """The offset to read next if nothing of what is unsettled counts; None before the first claim."""
        self.last: int = -1
        """The last offset claimed."""

    def __len__(self) -> int:
        """Return the number of claimed, unsettled messages."""
        return len(self._open) - len(self._settled)

    @property
    def held(self) -> int:
        """The number of claimed messages from the first unsettled one on."""
        return len(self._open)

    def claim(self, offsets: Sequence[int]) -> None:
        """Note that the messages at `offsets` are claimed; offsets are claimed in order. The hot path."""
        if offsets:
            if self.next is None:
                self.next = offsets[0]
            self._open.extend(offsets)
            self.last = offsets[-1]

    def settle(self, offset: int, value: Any = None) -> list[tuple[int, Any]]:
        """Note that the message at `offset` is settled. The hot path.

        Returns the offsets before which everything is settled now and was not, in order, each with its value.
        """
        waiting = self._open
        if waiting[0] != offset:
            self._settled[offset] = value
            return []
        waiting.popleft()
        reached = [(offset, value)]
        settled = self._settled
        if settled:
            while waiting and waiting[0] in settled:
                offset = waiting.popleft()
                reached.append((offset, settled.pop(offset)))
        self.next = waiting[0] if waiting else offset + 1
        return reached

    def settle_all(self, offsets: Iterable[int]) -> bool:
        """Note that the messages at `offsets` are settled, and return True if `next` has moved. The hot path."""
        waiting, settled = self._open, self._settled
        reached = -1
        for offset in offsets:
            if waiting[0] == offset:
                reached = waiting.popleft()
            else:
                settled[offset] = None
        if settled and reached >= 0:
            while waiting and waiting[0] in settled:
                reached = waiting.popleft()
                del settled[reached]
        if reached < 0:
            return False
        self.next = waiting[0] if waiting else reached + 1
        return True
