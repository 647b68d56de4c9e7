"""Schedules: a cron expression in a time zone, correct across changes of the clock.

cronsim evaluates the expression on a clock without time zones; the conversion to real instants is done
here, as cronsim handles only some expressions.
"""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from redis_worker.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from cronsim import CronSim

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


class Schedule:
    """The instants of `expression`, five fields or six with seconds first, in the zone `timezone`.

    If hour and minute are fixed (neither begins with `*`), a time fires once a day: at the end of a gap
    that contains it, and at the first of two occurrences. Otherwise the schedule keeps its rhythm in real
    time: a wall-clock time that does not occur is left out, and one that occurs twice fires twice.
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        """Raises ConfigurationError if the expression or zone is invalid, or the schedule never fires."""
        self.expression = expression
        self.timezone = timezone
        self.zone = _zone(timezone)
        fields = _checked(expression)
        self._fixed = not any(field.startswith("*") for field in fields[-5:-3])
        self.next(datetime.now(UTC))  # raises if it never fires

    def next(self, after: datetime | int) -> datetime:
        """Return the first instant later than `after`, a time with a zone, or in ms since the epoch.

        Raises ConfigurationError if fifty years contain none.
        """
        start = _moment(after)
        for moment in self._instants(start):
            return moment.astimezone(self.zone)
        raise ConfigurationError(f"the schedule {self.expression!r} never fires")

    def between(self, after: datetime | int, until: datetime | int) -> Iterator[datetime]:
        """Yield the instants later than `after`, up to and including `until`."""
        end = _moment(until)
        for moment in takewhile(lambda moment: moment <= end, self._instants(_moment(after))):
            yield moment.astimezone(self.zone)

    def local(self, ms: int) -> datetime:
        """Return `ms` since the epoch as a time in the schedule's zone."""
        return _moment(ms).astimezone(self.zone)

    def _instants(self, after: datetime) -> Iterator[datetime]:
        return self._fixed_times(after) if self._fixed else self._rhythm(after)

    def _fixed_times(self, after: datetime) -> Iterator[datetime]:
        """Yield one instant for each wall-clock time; several in one gap are one."""
        last = after
        for wall in _walls(self.expression, after.astimezone(self.zone).replace(tzinfo=None)):
            moment = self._real(wall)
            if moment > last:
                last = moment
                yield moment

    def _real(self, wall: datetime) -> datetime:
        """Return the first moment at which clocks show `wall`, or the end of the gap that contains it."""
        moment = wall.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if moment.astimezone(self.zone).replace(tzinfo=None) == wall:
            return moment
        before = wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        return self._change(before, moment) or moment

    def _rhythm(self, after: datetime) -> Iterator[datetime]:
        """Yield all moments at which clocks show a matching time, one period of constant offset after the other."""
        start, checked, offset = after, after, self._offset(after)
        while True:
            change = None
            for wall in _walls(self.expression, (start + offset).replace(tzinfo=None)):
                moment = wall.replace(tzinfo=UTC) - offset
                change = self._change(checked, moment)
                if change is not None:
                    break
                checked = moment
                yield moment
            if change is None:
                return
            # The moment of the change is the first of the next period.
            start, checked, offset = change - _SECOND, change, self._offset(change)

    def _change(self, start: datetime, end: datetime) -> datetime | None:
        """Return the first second up to `end` with another offset than at `start`, or None."""
        offset = self._offset(start)
        while start < end:
            later = min(start + _DAY, end)
            if self._offset(later) != offset:
                start, later = start.replace(microsecond=0), later.replace(microsecond=0)
                while later - start > _SECOND:
                    middle = start + timedelta(seconds=(later - start) // _SECOND // 2)
                    start, later = (start, middle) if self._offset(middle) != offset else (middle, later)
                return later
            start = later
        return None

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self.zone).utcoffset() or timedelta()


def _moment(time: datetime | int) -> datetime:
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"the time {time.isoformat()} needs a time zone")
        return time.astimezone(UTC)
    return datetime.fromtimestamp(time // 1000, UTC) + timedelta(milliseconds=time % 1000)


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = {zone.casefold(): zone for zone in zoneinfo.available_timezones()}
        near = difflib.get_close_matches(name.casefold(), known, 1)
        hint = f"; did you mean {known[near[0]]}?" if near else "; use a name such as Europe/Berlin"
        raise ConfigurationError(f"unknown time zone {name!r}{hint}") from None


def _checked(expression: str) -> list[str]:
    """Return the fields of `expression`. Raises ConfigurationError."""
    simulator = _simulator()
    fields = expression.split()
    if len(fields) not in (5, 6):
        count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        raise ConfigurationError(
            f"the schedule {expression!r} has {count}; it takes five (minute, hour, day, month, weekday), "
            "or six, with the second first"
        )
    try:
        simulator(expression, datetime(2000, 1, 1))
    except Exception as error:  # cronsim also fails assertions
        reason = str(error).replace("Bad ", "bad ") or "it cannot be parsed"
        raise ConfigurationError(f"the schedule {expression!r} is not a cron expression: {reason}") from None
    return fields


def _walls(expression: str, after: datetime) -> Iterator[datetime]:
    """Return the matching times later than `after`, on a clock that never changes."""
    return iter(_simulator()(expression, after))


def _simulator() -> type[CronSim]:
    try:
        from cronsim import CronSim
    except ImportError as error:
        raise ConfigurationError(
            f"cron jobs need the extra `cron` ({error.name} is missing): pip install 'redis-worker[cron]'"
        ) from None
    return CronSim
