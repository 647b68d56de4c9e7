"""Outcomes as the arguments of settle.lua."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis_worker.broker.keys import Keys
from redis_worker.broker.letters import dead_letter
from redis_worker.broker.schedule import new_token
from redis_worker.vocabulary.task import Outcome

# One settlement takes so many bytes at the most: a server cuts off a client that sends a gigabyte at once.
_MOST_BYTES = 16 * 1024 * 1024
# How long it is remembered how often a task was tried, in ms: a week.
COUNTS_MS = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept of what is done."""

    dead: int = 10_000
    """The most dead letters; the oldest are dropped, and counted."""
    result_ttl: int = 0
    """After so many seconds a result expires; 0 keeps it."""
    remember: int = 0
    """For so many milliseconds it is remembered that a message was completed; 0 where it may be completed twice."""


class Settlement:
    """One call of settle.lua: what is only answered, what is put off, what is dead, in this order."""

    __slots__ = ("_again", "_answered", "_dead", "_header", "_outcomes")

    def __init__(self, header: list[Any]) -> None:
        self._header = header
        self._outcomes: Sequence[Outcome] = ()
        self._answered: list[Any] = []
        self._again: list[Any] = []
        self._dead: list[Any] = []

    def take(self, outcomes: Sequence[Outcome], worker: str) -> int:
        """Take `outcomes` from the first on, as far as the size allows. Returns how many; the hot path."""
        answered = self._answered
        size = taken = 0
        for outcome in outcomes:
            raw, id, result = outcome[0][0], outcome[1], outcome[2]
            if outcome[3] is None:  # no error
                answered += (raw, id, result)
            else:
                self._take_failed(outcome, worker)
            taken += 1
            size += len(raw) + len(result or b"")
            if size > _MOST_BYTES:
                break
        self._outcomes = outcomes[:taken] if taken < len(outcomes) else outcomes
        return taken

    def _take_failed(self, outcome: Outcome, worker: str) -> None:
        raw = outcome.delivery.raw
        if outcome.again is not None:
            self._again += (raw, new_token(), math.ceil(outcome.again * 1000))
        elif outcome.dead:
            answer = ("", outcome.id or "", "") if outcome.result is None else ("1", outcome.id, outcome.result)
            self._dead += (raw, dead_letter(outcome, worker), *answer)
        else:
            self._answered += (raw, outcome.id, outcome.result)

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """What is settled."""
        return self._outcomes

    def arguments(self) -> list[Any]:
        """The arguments of the script."""
        counts = (len(self._answered) // 3, len(self._again) // 3)
        return [*self._header, *counts, *self._answered, *self._again, *self._dead]

    def at(self, positions: Sequence[int]) -> list[Outcome]:
        """The outcomes at `positions` among the arguments."""
        if not positions:
            return []
        ordered = sorted(self._outcomes, key=_section)
        return [ordered[position] for position in positions]


def _section(outcome: Outcome) -> int:
    if outcome.dead:
        return 2
    return 0 if outcome.again is None else 1


def settlements(outcomes: Sequence[Outcome], worker: str, keys: Keys, limits: Limits) -> Iterator[Settlement]:
    """`outcomes` in as few settlements as their size allows."""
    header = [worker, keys.channel, keys.wake, limits.dead, limits.result_ttl, COUNTS_MS, limits.remember]
    while outcomes:
        settlement = Settlement(header)
        taken = settlement.take(outcomes, worker)
        outcomes = outcomes[taken:]
        yield settlement
