"""Windows: each value is in the windows that hold its time, each window ends once, late values are counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_worker import ConfigurationError
from redis_worker.pipeline import Emit, Pipeline, StageFailed, Window, Windows

Event = tuple[str, int]


def windows(size: float, slide: float | None = None, lateness: float = 0, idle: float = 300) -> Windows:
    """Return windows that collect the times of events."""
    return Windows(
        size,
        slide,
        key=lambda event: event[0],
        at=lambda event: float(event[1]),
        add=lambda times, event: [*(times or []), event[1]],
        lateness=lateness,
        idle=idle,
    )


def emitted(entry: Emit | Exception) -> Emit:
    assert isinstance(entry, Emit)
    return entry


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(-20, 60)), max_size=60),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 10),
    st.integers(1, 20),
)
def test_windows_hold_what_is_not_late(events: list[Event], size: int, slide: int, lateness: int, batch: int) -> None:
    slide = min(size, slide)
    subject = windows(size, slide, lateness)
    batches = [events[start : start + batch] for start in range(0, len(events), batch)]
    found = [window for events in batches for ended in subject.batch(events) for window in emitted(ended)]
    for early in found:
        assert max(at for key, at in events if key == early.key) >= early.end + lateness
    found += subject.flush()
    expected: dict[tuple[str, int], list[int]] = {}
    newest: dict[str, int] = {}
    late = 0
    for key, at in events:
        passed = newest.setdefault(key, at) - lateness
        starts = [n * slide for n in range(math.floor(-40 / slide) - 1, 80) if n * slide <= at < n * slide + size]
        if not (open_ones := [start for start in starts if start + size > passed]):
            late += 1
        for start in open_ones:
            expected.setdefault((key, start), []).append(at)
        newest[key] = max(newest[key], at)
    assert {(window.key, window.start): window.value for window in found} == expected
    assert len(found) == len(expected)
    assert subject.late == late
    first = dict(reversed(events))
    for window in found:
        assert (window.added, window.end) == (len(window.value), window.start + size)
        assert window.partial == (window.start < first[window.key])


def test_a_key_without_values_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("redis_worker.pipeline.windows.time.monotonic", lambda: clock[0])
    subject = windows(10, idle=60)
    assert subject.add(("a", 0)) == []
    clock[0] += 59
    assert subject.add(("b", 0)) == []
    clock[0] += 1
    assert subject.add(("b", 1)) == [Window("a", 0, 10, [0], 1, False)]
    assert subject.keys == 1


async def test_a_pipeline_emits_windows_that_end() -> None:
    pipeline = Pipeline(windows(10), lambda window: (window.start, window.value, window.partial))
    entries = await pipeline.run([("a", 5), ("a", 9), ("a", 10), ("a", 19), ("a", 35)])
    assert entries == [None, None, (0, [5, 9], True), None, (10, [10, 19], False)]


async def test_a_value_that_cannot_be_added_fails_alone() -> None:
    pipeline = Pipeline(windows(10))
    entries = await pipeline.run([("a", 5), ("a", "x"), ("a", 9), ("a", 12)])
    assert isinstance(entries[1], StageFailed)
    assert entries[3] == Window("a", 0, 10, [5, 9], 2, True)


def test_settings_that_lose_values_are_refused() -> None:
    for size, slide in ((10, 11), (0, None), (5, 0)):
        with pytest.raises(ConfigurationError):
            windows(size, slide)
