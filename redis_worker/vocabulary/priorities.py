"""The priorities of a queue: names in their order, and perhaps weights."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import TypeAlias

from redis_worker.vocabulary.errors import ConfigurationError

DEFAULT = "default"
"""The priority whose list is that of the queue itself."""

_MOST, _HEAVIEST = 10, 100
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Priorities:
    """The priorities of a queue. See `priorities_of`."""

    names: tuple[str, ...]
    """All names, the first priority first."""
    weights: tuple[int, ...] | None = None
    """The turns of each among as many turns as their sum; None if the first one with tasks always comes first."""

    @property
    def others(self) -> tuple[str, ...]:
        """The names other than `default`, in their order: scripts know them by 1, 2, 3, …, and `default` by 0."""
        return tuple(name for name in self.names if name != DEFAULT)

    @property
    def order(self) -> str:
        """The numbers of all names, a digit each, the first priority first."""
        return "".join(str(self._number(name)) for name in self.names)

    @property
    def turns(self) -> str:
        """The numbers of the names that have the next turns, a digit each: after the last one, the first follows."""
        if self.weights is None:
            return self.order[0]
        divisor = gcd(*self.weights)
        weights = [weight // divisor for weight in self.weights]
        turns, credits = "", [0] * len(weights)
        # At each turn all are credited with their weights; the one with most credit has it, and pays for all.
        for _ in range(sum(weights)):
            credits = [credit + weight for credit, weight in zip(credits, weights, strict=True)]
            chosen = credits.index(max(credits))
            credits[chosen] -= sum(weights)
            turns += self.order[chosen]
        return turns

    def any_turn(self) -> int:
        """Return a random turn for a worker to begin with: many that live for a task or two take turns too."""
        return random.randrange(len(self.turns))

    def _number(self, name: str) -> int:
        return 0 if name == DEFAULT else 1 + self.others.index(name)

    def __str__(self) -> str:
        return ", ".join(self.names)


PrioritiesLike: TypeAlias = Priorities | str | Sequence[str] | Mapping[str, int]
"""Priorities, or what `priorities_of` makes them of."""


def is_priority(name: object) -> bool:
    """Return True if `name` can be that of a priority."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def priorities_of(value: PrioritiesLike) -> Priorities:
    """Return the priorities of a list of names, the first priority first, or of a mapping of names to weights.

    A text may stand for either: `high,default,low`, or `high=6,default=3,low=1`. Raises ConfigurationError.
    """
    if isinstance(value, Priorities):
        return value
    if isinstance(value, str):
        value = _read(value)
    if not isinstance(value, (Sequence, Mapping)):
        raise ConfigurationError(f"priorities must be a list of names, or names with weights, got {value!r}")
    names = tuple(value)
    if strange := [name for name in names if not is_priority(name)]:
        raise ConfigurationError(f"priorities must be names of letters, digits, _, - and dots, got {strange[0]!r}")
    if DEFAULT not in names:
        raise ConfigurationError(
            f"priorities must include {DEFAULT}, the list itself, got {', '.join(names) or 'none'}"
        )
    if len(set(names)) < len(names) or len(names) > _MOST:
        raise ConfigurationError(f"priorities must be up to {_MOST} different names, got {', '.join(names)}")
    if not isinstance(value, Mapping):
        return Priorities(names)
    for name, weight in value.items():
        if type(weight) is not int or not 1 <= weight <= _HEAVIEST:
            raise ConfigurationError(f"priorities must have weights from 1 to {_HEAVIEST}, got {name}={weight!r}")
    return Priorities(names, tuple(value.values()))


def check_priority(queue: str, priority: str, priorities: Priorities | None) -> None:
    """Raise ConfigurationError if `queue`, which has these `priorities`, does not have that one."""
    if priorities is None:
        raise ConfigurationError(f"the queue {queue} has no priorities, so there is no {priority!r}")
    if priority not in priorities.names:
        raise ConfigurationError(f"the queue {queue} has no priority {priority!r}; it has {priorities}")


def _read(text: str) -> Sequence[str] | Mapping[str, int]:
    items = [item.strip() for item in text.split(",")]
    if "=" not in text:
        return items
    weights: dict[str, int] = {}
    for item in items:
        name, _, weight = item.partition("=")
        if not weight.strip().isdecimal() or name.strip() in weights:
            raise ConfigurationError(f"priorities must have weights written as high=6,default=3,low=1, got {text!r}")
        weights[name.strip()] = int(weight)
    return weights
