"""When a job is due: a cron expression in a time zone, right across changes of the clock.

The expression is followed on a clock without time zones (cronsim), and what it says is brought to real
instants here: cronsim does so for some expressions only.
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
    """The instants of `expression`: five fields, or six of which the first is the second, in the zone `timezone`.

    Where hour and minute are fixed (neither begins with `*`) it fires once a day: at the end of a gap
    that its time falls into, and the first time of two. Otherwise it keeps its rhythm in real time:
    what matches no wall clock is left out, and what does so twice is there twice.
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        """Raises ConfigurationError where there is no such expression or zone, or it never fires."""
        self.expression = expression
        self.timezone = timezone
        self.zone = _zone(timezone)
        fields = _checked(expression)
        self._fixed = not any(field.startswith("*") for field in fields[-5:-3])
        self.next(datetime.now(UTC))  # it has one

    def next(self, after: datetime | int) -> datetime:
        """The first instant later than `after`, which is a time with a zone, or in ms since the epoch.

        Raises ConfigurationError where there is none in fifty years.
        """
        start = _moment(after)
        for moment in self._instants(start):
            return moment.astimezone(self.zone)
        raise ConfigurationError(f"the schedule {self.expression!r} never fires")

    def between(self, after: datetime | int, until: datetime | int) -> Iterator[datetime]:
        """The instants later than `after`, up to and with `until`, as they are asked for."""
        end = _moment(until)
        for moment in takewhile(lambda moment: moment <= end, self._instants(_moment(after))):
            yield moment.astimezone(self.zone)

    def local(self, ms: int) -> datetime:
        """So many ms since the epoch, as a time in the schedule's zone."""
        return _moment(ms).astimezone(self.zone)

    def _instants(self, after: datetime) -> Iterator[datetime]:
        return self._fixed_times(after) if self._fixed else self._rhythm(after)

    def _fixed_times(self, after: datetime) -> Iterator[datetime]:
        """One instant for each time on the wall; several that fall into one gap are one."""
        last = after
        for wall in _walls(self.expression, after.astimezone(self.zone).replace(tzinfo=None)):
            moment = self._real(wall)
            if moment > last:
                last = moment
                yield moment

    def _real(self, wall: datetime) -> datetime:
        """The first moment at which clocks show `wall`, or the end of the gap that it falls into."""
        moment = wall.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if moment.astimezone(self.zone).replace(tzinfo=None) == wall:
            return moment
        before = wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        return self._change(before, moment) or moment

    def _rhythm(self, after: datetime) -> Iterator[datetime]:
        """All moments at which clocks show a matching time, one stretch of unchanged clocks after the other."""
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
            # The moment of the change is the first one of the next stretch.
            start, checked, offset = change - _SECOND, change, self._offset(change)

    def _change(self, start: datetime, end: datetime) -> datetime | None:
        """The first second in which clocks go otherwise than at `start`, if there is one up to `end`."""
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
        hint = f"; did you mean {known[near[0]]}?" if near else ", as Europe/Berlin is one"
        raise ConfigurationError(f"there is no time zone {name!r}{hint}") from None


def _checked(expression: str) -> list[str]:
    """The fields of `expression`. Raises ConfigurationError."""
    simulator = _simulator()
    fields = expression.split()
    if len(fields) not in (5, 6):
        count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        raise ConfigurationError(
            f"the schedule {expression!r} has {count}; it takes five (minute, hour, day, month, weekday), "
            "or six, with the second before them"
        )
    try:
        simulator(expression, datetime(2000, 1, 1))
    except Exception as error:  # beside its own errors it fails assertions
        reason = str(error).replace("Bad ", "bad ") or "it cannot be read"
        raise ConfigurationError(f"the schedule {expression!r} is no cron expression: {reason}") from None
    return fields


def _walls(expression: str, after: datetime) -> Iterator[datetime]:
    """The matching times later than `after`, on a clock that never changes."""
    return iter(_simulator()(expression, after))


def _simulator() -> type[CronSim]:
    try:
        from cronsim import CronSim
    except ImportError as error:
        raise ConfigurationError(
            f"cron jobs need the extra `cron` ({error.name} is missing): pip install 'redis-worker[cron]'"
        ) from None
    return CronSim
