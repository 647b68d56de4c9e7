"""The backlog of one client: what waits to be sent to it, bounded in bytes."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Frame(NamedTuple):
    """The text of one WebSocket message, shared by all clients that receive it."""

    text: bytes
    events: int


class Backlog:
    """A queue of frames with at most `limit` bytes: beyond that, the oldest are lost."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self.lost = 0
        """The number of events lost since `take_lost`."""

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frame: Frame) -> int:
        """Append `frame`. Returns the number of events lost by that."""
        self._frames.append(frame)
        self._bytes += len(frame.text)
        lost = 0
        while self._bytes > self._limit and len(self._frames) > 1:
            lost += self.next().events
        self.lost += lost
        return lost

    def next(self) -> Frame:
        """Remove and return the oldest frame."""
        frame = self._frames.popleft()
        self._bytes -= len(frame.text)
        return frame

    def take_lost(self) -> int:
        """Return the number of events lost since the last call."""
        lost, self.lost = self.lost, 0
        return lost
