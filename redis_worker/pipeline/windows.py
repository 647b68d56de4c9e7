"""Windows of event time: values of a key are aggregated, and the aggregate is emitted once its time has passed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis_worker.pipeline.stage import Emit
from redis_worker.vocabulary.checks import check_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError

# Seconds between two looks for keys without values.
_SWEEP = 1.0

_NONE = Emit()


class Window(NamedTuple):
    """A window that has ended."""

    key: Any
    start: float
    """Seconds since the epoch, as the values have them; `start` is in the window, `end` is not."""
    end: float
    value: Any
    """The aggregate."""
    added: int
    """The number of values in it."""
    partial: bool
    """True if it began before the first value of its key that this process has seen: values may be missing."""


@dataclass(slots=True)
class _Open:
    value: Any
    count: int = 1


@dataclass(slots=True)
class _Key:
    first: float
    newest: float
    open_from: int
    """The number of the first window that has not ended."""
    seen: float
    """By the monotonic clock."""
    windows: dict[int, _Open] = field(default_factory=dict)
    """By number: window n begins at n times the slide."""
    at_hand: _Open | None = None
    """The window of a value at a time from `since` to `until`, if that is its only one: no window ends with it."""
    since: float = 0.0
    until: float = 0.0


class Windows:
    """A stage that aggregates values into windows, by key, and emits the windows that end.

        minutes = Windows("1m", key=lambda r: r.device, at=lambda r: r.at, add=lambda total, r: (total or 0) + r.value)

    The time of a key is that of its newest value, less the lateness; a window ends when that passes its end. A value
    whose windows have all ended is late: it is counted and dropped. A key without a value for `idle` seconds of this
    machine's clock ends too.

    Windows are in memory, and do not survive a restart or a rebalance: open ones are lost, and the first ones after it
    are partial. A retry of a message adds it again: nothing that can fail should follow in the pipeline.
    """

    def __init__(
        self,
        size: Duration,
        slide: Duration | None = None,
        *,
        key: Callable[[Any], Hashable],
        at: Callable[[Any], float],
        add: Callable[[Any, Any], Any],
        lateness: Duration = 0,
        idle: Duration = 300,
        name: str = "windows",
    ) -> None:
        """Windows of `size` begin every `slide`, by default after one another, from the epoch on.

        `add` returns the aggregate from the one before (None at first) and a value. Raises ConfigurationError.
        """
        self.__name__ = name
        self._size = check_seconds("size", size, above=0)
        self._slide = self._size if slide is None else check_seconds("slide", slide, above=0)
        if self._slide > self._size:
            raise ConfigurationError(
                f"slide must be at most size, {self._size:g} s: values between windows would be lost"
            )
        self._lateness = check_seconds("lateness", lateness, least=0)
        self._idle = check_seconds("idle", idle, above=0)
        self._key, self._at, self._add = key, at, add
        self._keys: dict[Hashable, _Key] = {}
        """The one that has waited longest for a value comes first."""
        self._sweep_at = 0.0
        self.late = 0
        """The number of values that were too late for all of their windows."""

    def __call__(self, value: Any) -> Emit:
        """Add a value, and emit the windows that end."""
        [entry] = self.batch((value,))
        if isinstance(entry, Exception):
            raise entry
        return entry

    def add(self, value: Any) -> list[Window]:
        """Add a value, and return the windows that end, oldest first."""
        return list(self(value))

    @property
    def keys(self) -> int:
        """The number of keys with open windows."""
        return len(self._keys)

    def batch(self, values: Sequence[Any]) -> list[Emit | Exception]:
        """Add values, and return for each the windows that end, oldest first, or the error of a function of the user.

        The hot path.
        """
        keys, key_of, at_of, add = self._keys, self._key, self._at, self._add
        now = time.monotonic()
        entries: list[Emit | Exception] = []
        for value in values:
            try:
                name, at = key_of(value), at_of(value)
                key = keys.get(name)
                if key is None:
                    key = keys[name] = _Key(at, at, self._open_from(at), now)
                elif key.seen != now:
                    keys[name] = keys.pop(name)
                    key.seen = now
                if (window := key.at_hand) is None or not key.since <= at < key.until:
                    entries.append(self._placed(name, key, at, value))
                    continue
                window.value = add(window.value, value)
                window.count += 1
                if at > key.newest:
                    key.newest = at
                entries.append(_NONE)
            except Exception as error:
                entries.append(error)
        if now >= self._sweep_at and entries and isinstance(entries[0], Emit):
            entries[0] = Emit((*self._idle_keys(now), *entries[0]))
        return entries

    def _placed(self, name: Hashable, key: _Key, at: float, value: Any) -> Emit:
        """Add a value to its windows, and emit those that end."""
        slide, size = self._slide, self._size
        first, last = max(key.open_from, math.floor((at - size) / slide) + 1), math.floor(at / slide)
        if first > last:
            self.late += 1
        for number in range(first, last + 1):
            window = key.windows.get(number)
            if window is None:
                key.windows[number] = _Open(self._add(None, value))
            else:
                window.value = self._add(window.value, value)
                window.count += 1
        ended = _NONE
        if at > key.newest:
            key.newest = at
            if (open_from := self._open_from(at)) > key.open_from:
                key.open_from = open_from
                ended = Emit(self._ended(name, key, open_from))
        key.at_hand = key.windows.get(last) if slide == size else None
        key.since, key.until = last * slide, min(last * slide + size, key.open_from * slide + size + self._lateness)
        return ended

    def _open_from(self, newest: float) -> int:
        """Return the number of the first window that has not ended for a key with this newest time."""
        return math.floor((newest - self._lateness - self._size) / self._slide) + 1

    def flush(self) -> list[Window]:
        """End all windows, and return them."""
        ended = [window for name, key in self._keys.items() for window in self._ended(name, key, None)]
        self._keys.clear()
        return ended

    def _ended(self, name: Hashable, key: _Key, open_from: int | None) -> list[Window]:
        """Remove and return the windows of a key before number `open_from`; all without it."""
        numbers = sorted(number for number in key.windows if open_from is None or number < open_from)
        ended: list[Window] = []
        for number in numbers:
            window, start = key.windows.pop(number), number * self._slide
            ended.append(Window(name, start, start + self._size, window.value, window.count, start < key.first))
        return ended

    def _idle_keys(self, now: float) -> list[Window]:
        ended: list[Window] = []
        self._sweep_at = now + min(_SWEEP, self._idle)
        while self._keys:
            name, key = next(iter(self._keys.items()))
            if now - key.seen < self._idle:
                break
            del self._keys[name]
            ended += self._ended(name, key, None)
        return ended
