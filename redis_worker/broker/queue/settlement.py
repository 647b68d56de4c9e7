"""Outcomes as arguments of settle.lua."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis_worker.broker.keys import BUNDLE, Keys
from redis_worker.broker.queue.dead_letter import dead_letter
from redis_worker.broker.queue.delayed import new_token
from redis_worker.vocabulary.errors import DamagedKey
from redis_worker.vocabulary.task import Outcome

# Most bytes of one settlement, unless it is one task: a server cuts off a client that sends a gigabyte at once.
_MOST_BYTES = 16 * 1024 * 1024
# Time for which attempts of a task are remembered, in ms: a week.
COUNTS_MS = 7 * 86_400_000

_ANSWERED, _AGAIN, _DEAD = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on stored results, dead letters and ids."""

    dead: int
    """The most dead letters; older ones are dropped and counted."""
    result_ttl: int = 0
    """Seconds until a result expires; 0 keeps it."""
    remember: int = 0
    """Milliseconds for which a completed message is remembered; 0 if it may run twice.

    -1 for a list whose tasks may have records, see `InFlight.end_records`; -2 if results are passed on.
    """
    error_ttl: int | None = None
    """Seconds until an error result expires; None if it is as for other results."""

    @property
    def lifetimes(self) -> str:
        """The argument of the scripts, see `expire_results` in common.lua."""
        return f"{self.result_ttl}" if self.error_ttl is None else f"{self.result_ttl} {self.error_ttl}"


class Verdict(NamedTuple):
    """Reply of settle.lua to a settlement."""

    lost: list[Outcome]
    """Outcomes whose tasks other workers have now."""
    unheld: list[Outcome]
    """Outcomes whose tasks are not in flight, although the worker has its lease."""
    left: list[tuple[DamagedKey, list[Outcome]]]
    """Unwritten outcomes, by the damaged key they need."""
    damages: list[DamagedKey]
    """The damaged keys found."""


class Settlement:
    """One call of settle.lua: answered, delayed and dead tasks, in this order."""

    __slots__ = ("_again", "_answered", "_dead", "_header", "_keys", "outcomes", "size")

    def __init__(self, header: list[Any], keys: Keys) -> None:
        self._header = header
        self._keys = keys
        self.outcomes: Sequence[Outcome] = ()
        """The outcomes settled."""
        self.size = 0
        """Bytes of results and letters."""
        self._answered: list[Any] = []
        self._again: list[Any] = []
        self._dead: list[Any] = []

    def take(self, outcomes: Sequence[Outcome], worker: str) -> int:
        """Take leading `outcomes` up to the size limit. Returns their number; on the hot path."""
        answered = self._answered
        size = taken = 0
        for outcome in outcomes:
            result = outcome.result
            bytes = len(result or b"")
            if size + bytes > _MOST_BYTES and taken:
                break
            size += bytes
            if outcome.error is None:
                answered += (outcome.delivery.number, outcome.id, result)
            else:
                size += self._take_failed(outcome, worker)
            taken += 1
        self.outcomes = outcomes[:taken] if taken < len(outcomes) else outcomes
        self.size = size
        return taken

    def _take_failed(self, outcome: Outcome, worker: str) -> int:
        """Take an outcome that is not a success. Returns the bytes added to the result."""
        number = outcome.delivery.number
        priority = self._keys.priority_of(number)
        if outcome.again is not None:
            self._again += (number, new_token(priority), math.ceil(outcome.again * 1000))
        elif outcome.dead:
            letter = dead_letter(outcome, worker, priority=priority)
            answer = ("", outcome.id or "", "") if outcome.result is None else ("1", outcome.id, outcome.result)
            self._dead += (number, letter, *answer)
            return len(letter)
        else:
            self._answered += (number, outcome.id, outcome.result)
        return 0

    def cut_letter(self, worker: str) -> bool:
        """Cut the letter of a settlement of one dead task. Returns False for any other, or if nothing is saved."""
        if len(self.outcomes) != 1 or not self._dead:
            return False
        outcome = self.outcomes[0]
        letter = dead_letter(outcome, worker, cut=True, priority=self._keys.priority_of(outcome.delivery.number))
        saved = len(self._dead[1]) - len(letter)
        if saved <= 0:
            return False
        self._dead[1] = letter
        self.size -= saved
        return True

    def arguments(self, force: bool) -> list[Any]:
        """Return the arguments of the script; `force` writes outcomes of tasks that are not in flight."""
        count, again = len(self._answered) // 3, len(self._again) // 3
        answered, run = self._answered, "" if force else self._run()
        if run:
            answered = [*answered]
            del answered[::3]
        arguments = [*self._header, "1" if force else "", count, again, run, *answered, *self._again, *self._dead]
        if force:
            first, first_dead = len(self._header) + 4, len(self._header) + 4 + 3 * (count + again)
            raws = [outcome.delivery.raw for outcome in self._ordered()]
            arguments[first:first_dead:3], arguments[first_dead::5] = raws[: count + again], raws[count + again :]
        return arguments

    @property
    def is_in_order(self) -> bool | None:
        """True if its answered tasks are in the order of their claims; None of few tasks."""
        numbers = self._answered[::3]
        return None if len(numbers) < BUNDLE else all(map(operator.lt, numbers, numbers[1:]))

    def _run(self) -> int | str:
        """Return the number of the first answered task, if many follow it in order: it also gives theirs."""
        numbers = self._answered[::3]
        if len(numbers) < BUNDLE or numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
            return ""
        return int(numbers[0])

    def _ordered(self) -> list[Outcome]:
        return sorted(self.outcomes, key=_section)

    def verdict(self, reply: list[Any]) -> Verdict:
        """Return the parsed reply of the script."""
        positions, damages = reply, []
        left: dict[int, DamagedKey] = {}
        if reply and isinstance(reply[0], list):
            positions, *found = reply
            for section, key, kind, expected in zip(*(found[start::4] for start in range(4)), strict=True):
                damages.append(DamagedKey(key.decode(errors="replace"), kind.decode(), expected.decode()))
                left[section] = damages[-1]
        ordered = self._ordered()
        lost = [ordered[position] for position in positions if position >= 0]
        unheld = [ordered[-1 - position] for position in positions if position < 0]
        waiting = [
            (damage, [outcome for outcome in ordered if _section(outcome) == section])
            for section, damage in left.items()
        ]
        return Verdict(lost, unheld, [(damage, outcomes) for damage, outcomes in waiting if outcomes], damages)


def _section(outcome: Outcome) -> int:
    if outcome.dead:
        return _DEAD
    return _ANSWERED if outcome.again is None else _AGAIN


def settlements(outcomes: Sequence[Outcome], worker: str, keys: Keys, limits: Limits) -> Iterator[Settlement]:
    """Yield `outcomes` in as few settlements as their size allows."""
    header = [worker, keys.channel, keys.wake, limits.dead, limits.lifetimes, COUNTS_MS, limits.remember]
    while outcomes:
        settlement = Settlement(header, keys)
        taken = settlement.take(outcomes, worker)
        outcomes = outcomes[taken:]
        yield settlement


def pieces(outcomes: Sequence[Outcome]) -> Iterator[tuple[Sequence[Outcome], int]]:
    """Yield `outcomes` in as few pieces as the size of results and dead tasks allows, with these sizes in bytes."""
    first = size = 0
    for index, outcome in enumerate(outcomes):
        bytes = len(outcome.result or b"") + (len(outcome.delivery.raw) if outcome.dead else 0)
        if size + bytes > _MOST_BYTES and index > first:
            yield outcomes[first:index], size
            first, size = index, 0
        size += bytes
    if outcomes:
        yield outcomes[first:], size
