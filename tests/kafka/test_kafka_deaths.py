"""Killed workers: a message that kills its process ends as a dead letter, and others are handled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_worker.kafka.marks import ALONE, WINDOWS, Mark, read_mark
from redis_worker.kafka.offsets import Offsets
from redis_worker.mock_kafka import MockKafka
from tests.kafka.kafka_support import KafkaTopic, reasons
from tests.support import CommandProcess, wait_until


@pytest.mark.long
async def test_a_message_that_kills_its_process_ends_as_a_dead_letter(mock_kafka: MockKafka, tmp_path: Path) -> None:
    topic = KafkaTopic.on(mock_kafka)
    log = tmp_path / "log"
    for partition in range(4):
        topic.produce(range(partition * 1000, partition * 1000 + 150), partition)
    topic.produce(["killer"], 2)
    for partition in range(4):
        topic.produce(range(partition * 1000 + 150, partition * 1000 + 250), partition)
    deaths = 0
    while not await _ended_or_done(topic, log):
        deaths += 1
        assert deaths < 12, "the message goes on killing"
    letters = topic.dead_letters(1)
    text = "Processing error: given up: 3 workers died while holding the task"
    assert reasons(letters) == {b'"killer"': text}
    handled = Counter(log.read_text().split())
    assert set(handled) == {str(p * 1000 + number) for p in range(4) for number in range(250)} | {"killer"}
    # Twice among others, then three times alone.
    assert handled["killer"] == deaths == 5


async def _ended_or_done(topic: KafkaTopic, log: Path) -> bool:
    """Run a worker; return False once it has died, True once all is committed."""
    # A static member is replaced at once; a session of another ends first.
    process = CommandProcess(topic.brokers, topic.name, str(log), "one", program="tests.kafka.killed_worker")
    try:
        await wait_until(lambda: not process.alive or sum(topic.committed()) == 1001)
        return process.alive
    finally:
        process.close()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.randoms())
def test_an_offset_is_next_only_if_all_before_it_are_settled(gaps: list[int], random: object) -> None:
    """Whatever the order of settling is, and wherever offsets are missing."""
    offsets, claimed, at = Offsets(), list[int](), 0
    for gap in gaps:
        at += 1 + gap
        claimed.append(at)
        offsets.claim([at])
    settled: set[int] = set()
    reached: list[int] = []
    shuffled = claimed.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for offset in shuffled:
        reached += [found for found, _ in offsets.settle(offset)]
        settled.add(offset)
        assert reached == sorted(reached)
        assert offsets.next is not None
        assert all(each in settled for each in claimed if each < offsets.next)
        assert len(offsets) == len(claimed) - len(settled)
    assert (reached, offsets.next) == (claimed, claimed[-1] + 1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 10), st.randoms())
def test_offsets_that_are_settled_together_move_as_far_as_one_by_one(gaps: list[int], size: int, random: Any) -> None:
    claimed = [sum(gaps[: number + 1]) + number for number in range(len(gaps))]
    together, alone = Offsets(), Offsets()
    together.claim(claimed)
    alone.claim(claimed)
    random.shuffle(order := claimed.copy())
    for start in range(0, len(order), size):
        some, before = order[start : start + size], together.next
        has_moved = together.settle_all(some)
        for offset in some:
            alone.settle(offset)
        assert (together.next, len(together)) == (alone.next, len(alone))
        assert has_moved == (together.next != before)


@given(killer=st.integers(0, 200), progress=st.lists(st.integers(0, 100), min_size=40, max_size=40))
def test_the_search_finds_a_killer_wherever_commits_stop(killer: int, progress: list[int]) -> None:
    """Each worker commits some way, at most to the killer, and dies; only the killer is charged, and soon."""
    offset, mark, deaths = 0, Mark(), 0
    for step in progress:
        mark = mark.inherited(offset)
        if mark.deaths >= 3:
            break
        end = killer if mark.level == ALONE else min(killer, offset + step)
        # A worker claims no further than its window: beyond it, it must have committed.
        end = max(end, killer - WINDOWS[mark.level] + 1)
        if end > offset:
            mark, offset = mark.committed(end), end
        mark = read_mark(Mark(mark.level, mark.until, mark.deaths, open=True).metadata())
        deaths += 1
    assert offset == killer
    assert mark.deaths == 3
    assert deaths <= 5


def test_a_mark_of_others_is_none() -> None:
    for metadata in (None, "", "x", "redis-worker open 1 2", "redis-worker open a b c", "a b c d e"):
        assert read_mark(metadata) == Mark()
    closed = Mark(1, 100, 0)
    assert read_mark(closed.metadata()).inherited(50) == closed
    assert read_mark(closed.metadata()).inherited(100) == Mark()


@pytest.mark.long
async def test_random_kills_condemn_no_innocent_message(mock_kafka: MockKafka, tmp_path: Path) -> None:
    topic = KafkaTopic.on(mock_kafka)
    for partition in range(4):
        topic.produce(range(partition * 10_000, partition * 10_000 + 2000), partition)
    log = tmp_path / "log"
    while (before := sum(topic.committed())) < 8000:
        process = CommandProcess(topic.brokers, topic.name, str(log), program="tests.kafka.killed_worker")
        try:
            await wait_until(lambda before=before: sum(topic.committed()) > min(before + 500, 7999))
        finally:
            process.close()
    handled = set(log.read_text().split())
    assert handled == {str(p * 10_000 + number) for p in range(4) for number in range(2000)}
