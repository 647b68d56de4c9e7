"""Schedules against a reference that walks through real time, minute by minute, and looks at the clock on the wall."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_worker import ConfigurationError
from redis_worker.cron.schedule import Schedule

MINUTE = timedelta(minutes=1)
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]

SCHEDULES = [
    "30 2 * * *",  # a fixed time, which there is not on one day, and twice on another
    "0,30 1,2 * * 0",  # several of them on those very days
    "*/15 * * * *",  # a rhythm
    "*/5 2 * * *",  # a rhythm within an hour
    "0 30 2 * * *",  # six fields, fixed
    "*/20 45 1-3 10-25/5,29 3,10-11 SUN",  # six fields, fixed but for the second; this day or that
]
ZONES = ["Europe/Berlin", "America/New_York", "Asia/Shanghai"]


# The reference


def allowed(field: str, first: int, last: int) -> set[int]:
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        low, _, high = span.partition("-")
        low = str(DAYS.index(low)) if low in DAYS else low
        start = first if low == "*" else int(low)
        end = last if low == "*" or (step and not high) else int(high or low)
        found |= set(range(start, end + 1, int(step or 1)))
    return found


class Reference:
    """What is to be fired from `start` to `end`, by walking."""

    def __init__(self, expression: str) -> None:
        fields = expression.split()
        self.seconds = sorted(allowed(fields[-6], 0, 59)) if len(fields) == 6 else [0]
        minute, hour, day, month, weekday = fields[-5:]
        self.fixed = minute[0] != "*" and hour[0] != "*"
        self.minutes, self.hours = allowed(minute, 0, 59), allowed(hour, 0, 23)
        self.days, self.months = allowed(day, 1, 31), allowed(month, 1, 12)
        self.weekdays = {number % 7 for number in allowed(weekday, 0, 7)}
        self.both = day[0] == "*" or weekday[0] == "*"

    def on_day(self, wall: datetime) -> bool:
        of_month, of_week = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        return wall.month in self.months and (of_month and of_week if self.both else of_month or of_week)

    def matches(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and self.on_day(wall)

    def fired(self, walk: list[tuple[datetime, datetime]]) -> list[datetime]:
        """`walk`: all minutes of real time, in order, each with what clocks show."""
        found = self._once_a_day(walk) if self.fixed else self._in_rhythm(walk)
        return sorted(set(found))

    def _in_rhythm(self, walk: list[tuple[datetime, datetime]]) -> Iterator[datetime]:
        for moment, wall in walk:
            if self.matches(wall):
                yield from (moment.replace(second=second) for second in self.seconds)

    def _once_a_day(self, walk: list[tuple[datetime, datetime]]) -> Iterator[datetime]:
        highest = walk[0][1] - MINUTE
        for moment, wall in walk:
            if wall <= highest:
                continue  # clocks have shown that before
            skipped = highest + MINUTE
            while skipped < wall:  # these they never show: all of them come now
                if self.matches(skipped):
                    yield moment
                skipped += MINUTE
            if self.matches(wall):
                yield from (moment.replace(second=second) for second in self.seconds)
            highest = wall


@cache
def walk(zone: str, start: datetime, days: int) -> list[tuple[datetime, datetime]]:
    minutes = (start + MINUTE * n for n in range(days * 1440))
    return [(moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for moment in minutes]


def check(expression: str, zone: str, start: datetime, days: int) -> list[datetime]:
    way = walk(zone, start, days)
    found = list(Schedule(expression, zone).between(start - timedelta(seconds=1), way[-1][0] + timedelta(seconds=59)))
    expected = Reference(expression).fired(way)
    assert [moment.astimezone(UTC) for moment in found] == expected
    assert all(moment.tzinfo == ZoneInfo(zone) for moment in found)
    return found


@pytest.mark.parametrize("zone", [ZONES[0], *(pytest.param(zone, marks=pytest.mark.long) for zone in ZONES[1:])])
@pytest.mark.parametrize("expression", SCHEDULES)
def test_a_year_of_firings(expression: str, zone: str) -> None:
    # From noon, so that no day is cut off in the middle of what happens at night.
    found = check(expression, zone, datetime(2026, 1, 1, 12, tzinfo=UTC), 365)
    assert len(found) >= 40


@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
@pytest.mark.parametrize("zone", ZONES)
def test_a_fixed_time_comes_once_every_day_of_a_year(expression: str, zone: str) -> None:
    start, end = (datetime(year, 1, 1, tzinfo=ZoneInfo(zone)) for year in (2026, 2027))
    days = [moment.date() for moment in Schedule(expression, zone).between(start, end)]
    assert len(days) == len(set(days)) == 365


@pytest.mark.parametrize("expression", [*SCHEDULES, "10 0 * * *", "*/10 0,3 * * *", "0 */2 * * *", "5,55 * * * *"])
@pytest.mark.parametrize(
    ("zone", "start", "days"),
    [
        ("Australia/Lord_Howe", datetime(2026, 4, 3, tzinfo=UTC), 4),  # back by half an hour
        ("Australia/Lord_Howe", datetime(2026, 10, 2, tzinfo=UTC), 4),
        ("Africa/Cairo", datetime(2026, 4, 22, 12, tzinfo=UTC), 4),  # there is no midnight
        ("Africa/Cairo", datetime(2026, 10, 28, 12, tzinfo=UTC), 4),  # there are two
        ("Pacific/Apia", datetime(2011, 12, 28, tzinfo=UTC), 5),  # there is no 30th of December
        ("Asia/Kathmandu", datetime(2026, 3, 28, tzinfo=UTC), 3),
        ("UTC", datetime(2026, 3, 28, tzinfo=UTC), 3),
    ],
)
def test_clocks_that_change_in_odd_ways(expression: str, zone: str, start: datetime, days: int) -> None:
    """`check` compares the instants with those that are found minute by minute."""
    check(expression, zone, start, days)


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ],
)
def test_every_second_around_a_change(zone: str, change: datetime) -> None:
    start = change - timedelta(hours=3)
    seconds = [start + timedelta(seconds=n) for n in range(6 * 3600)]
    every = Schedule("* * * * * *", zone).between(start - timedelta(seconds=1), seconds[-1])
    assert [moment.astimezone(UTC) for moment in every] == seconds
    some = Schedule("*/7 */3 1,2 * * *", zone).between(start - timedelta(seconds=1), seconds[-1])
    walls = ((moment, moment.astimezone(ZoneInfo(zone))) for moment in seconds)
    assert [moment.astimezone(UTC) for moment in some] == [
        moment for moment, wall in walls if wall.second % 7 == 0 and wall.minute % 3 == 0 and wall.hour in (1, 2)
    ]


def test_in_words() -> None:
    def said(expression: str, *day: int) -> list[str]:
        start = datetime(*day, 0, 0, tzinfo=ZoneInfo("Europe/Berlin"))  # type: ignore[misc, arg-type]
        found = Schedule(expression, "Europe/Berlin").between(start, start + timedelta(days=1))
        return [moment.isoformat()[11:] for moment in found if 1 <= moment.hour <= 3]

    gap, fold = (2026, 3, 29), (2026, 10, 25)
    assert said("30 2 * * *", *gap) == ["03:00:00+02:00"]
    assert said("0,30 2 * * *", *gap) == ["03:00:00+02:00"]
    assert said("0 30 2 * * *", *gap) == ["03:00:00+02:00"]
    assert said("30 2 * * *", *fold) == ["02:30:00+02:00"]
    assert said("0 30 2 * * *", *fold) == ["02:30:00+02:00"]
    assert said("*/30 2 * * *", *gap) == []
    assert said("*/30 2 * * *", *fold) == ["02:00:00+02:00", "02:30:00+02:00", "02:00:00+01:00", "02:30:00+01:00"]
    assert said("30 * * * *", *gap) == ["01:30:00+01:00", "03:30:00+02:00"]


MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))
NIGHTS = st.sampled_from([
    datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
])  # fmt: skip
STARTS = MOMENTS | st.builds(
    lambda night, seconds: night + timedelta(seconds=seconds), NIGHTS, st.floats(-10_000, 10_000)
)


@given(st.sampled_from(SCHEDULES), st.sampled_from([*ZONES, "Australia/Lord_Howe"]), STARTS, st.data())
@settings(deadline=None, max_examples=60)
def test_from_wherever_one_starts_the_instants_are_the_same(
    expression: str, zone: str, start: datetime, data: st.DataObject
) -> None:
    schedule = Schedule(expression, zone)
    sequence = []
    moment = start
    for _ in range(8):
        # In UTC: within a zone times are compared by what is on the wall, and between zones those of a fold are
        # equal to none.
        following = schedule.next(moment).astimezone(UTC)
        assert following > moment
        assert following.microsecond == 0
        # Whatever lies between the two is followed by the same.
        inside = moment + (following - moment) * data.draw(st.floats(0, 0.999))
        assert schedule.next(inside).astimezone(UTC) == following
        assert schedule.next(int(inside.timestamp() * 1000)).astimezone(UTC) == following
        moment = following
        sequence.append(following)
    assert [moment.astimezone(UTC) for moment in schedule.between(start, sequence[-1])] == sequence


@pytest.mark.parametrize(
    ("expression", "zone", "message"),
    [
        ("61 * * * *", "UTC", "the schedule '61 * * * *' is not a cron expression: bad minute"),
        ("* * *", "UTC", "has 3 fields; it takes five"),
        ("", "UTC", "has 0 fields"),
        ("1#1/2 * * * *", "UTC", "is not a cron expression"),
        ("0 0 30 2 *", "UTC", "is not a cron expression: bad day-of-month"),
        ("0 0 * 2 SUN#5,MON#6", "UTC", "is not a cron expression: bad day-of-week"),
        ("* * * * *", "Europe/Berln", "unknown time zone 'Europe/Berln'; did you mean Europe/Berlin?"),
        ("* * * * *", "europe/berlin", "did you mean Europe/Berlin?"),
        ("* * * * *", "/etc/localtime", "unknown time zone"),
        ("* * * * *", "Europe", "unknown time zone"),
        ("* * * * *", "", "unknown time zone"),
    ],
)
def test_what_is_no_schedule(expression: str, zone: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Schedule(expression, zone)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_never_fires() -> None:
    # The first of a month is never its second Monday.
    with pytest.raises(ConfigurationError, match=r"the schedule '0 0 \*/31 2 MON#2' never fires"):
        Schedule("0 0 */31 2 MON#2")


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        Schedule("* * * * *").next(datetime(2026, 1, 1))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigurationError, match=r"extra `cron` \(cronsim is missing\): pip install"):
        Schedule("* * * * *")
