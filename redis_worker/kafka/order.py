"""The order of messages: one that shares a lane with an unsettled one waits behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

LaneOf = Callable[[Any], Hashable | None]
"""Returns the lane of a message of confluent-kafka within its partition; None for a message without order."""

# Messages of one partition that wait behind others; beyond it the partition waits.
_MOST = 1000


def _whole(_: Any) -> Hashable:
    return b""


LANES: dict[str, LaneOf | None] = {
    "none": None,
    "partition": _whole,
    "key": lambda message: message.key(),
}


class _Held(Protocol):
    message: Any


D = TypeVar("D", bound=_Held)


class Lanes(Generic[D]):
    """The lanes of one partition."""

    def __init__(self, lane_of: LaneOf | None) -> None:
        self._lane_of = lane_of
        self.ordered = lane_of is not None
        """False if no message waits behind another."""
        self._busy: dict[Hashable, deque[D]] = {}
        self.waiting = 0
        """The number of messages that wait behind others."""

    def room(self) -> int:
        """Return how many messages may enter."""
        if self._lane_of is _whole:
            return 0 if self._busy else 1
        return _MOST - self.waiting

    def enter(self, delivery: D) -> bool:
        """Return True if `delivery` may start; otherwise it waits. The hot path."""
        if self._lane_of is None or (lane := self._lane_of(delivery.message)) is None:
            return True
        if (behind := self._busy.get(lane)) is None:
            self._busy[lane] = deque()
            return True
        behind.append(delivery)
        self.waiting += 1
        return False

    def leave(self, delivery: D) -> D | None:
        """Return the message that may start now that `delivery` has its last outcome; None if none waits."""
        if self._lane_of is None or (lane := self._lane_of(delivery.message)) is None:
            return None
        if behind := self._busy[lane]:
            self.waiting -= 1
            return behind.popleft()
        del self._busy[lane]
        return None
