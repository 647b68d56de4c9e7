"""Faults, and the schedule of a run, which a seed determines."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Target = Literal["worker", "fleet", "network", "server"]


class Kind(NamedTuple):
    """One way to break something."""

    target: Target
    text: str
    """The fault as a report names it."""
    least: float = 0.0
    """The shortest duration, in seconds."""
    most: float = 0.0


KINDS = {
    "kill": Kind("worker", "SIGKILL of a worker"),
    "kill-parent": Kind("fleet", "SIGKILL of the parent of worker processes"),
    "freeze": Kind("worker", "SIGSTOP past the lease, then SIGCONT", 4.5, 6.0),
    "terminate": Kind("worker", "SIGTERM under load"),
    "restart": Kind("server", "restart of the server"),
    "crash": Kind("server", "SIGKILL of the server, which starts again"),
    "failover": Kind("server", "failover to the replica, and back", 1.0, 4.0),
    "client-kill": Kind("server", "CLIENT KILL of all connections"),
    "client-pause": Kind("server", "CLIENT PAUSE", 0.5, 3.0),
    "script-flush": Kind("server", "SCRIPT FLUSH"),
    "full": Kind("server", "a full server without eviction", 1.0, 3.0),
    "cut": Kind("network", "connections cut"),
    "stall": Kind("network", "connections that stand still", 1.0, 4.0),
    "delay": Kind("network", "delayed bytes", 1.0, 4.0),
    "half": Kind("network", "half a reply, then a cut"),
}
"""All faults, by the name that the command line knows."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a schedule."""

    kind: str
    at: float
    """Seconds after the start of the run."""
    victim: int
    """Position of the worker that it concerns; of no meaning if it concerns the server."""
    seconds: float
    """How long it lasts."""


# Mean interval between two faults, in seconds, in a run that is long enough.
_EVERY = 3.0
# Part of the run in which faults begin: workers start before it, and tasks are pushed after it.
_FIRST, _LAST = 0.05, 0.85


def schedule(
    seed: int, kinds: Sequence[str], seconds: float, workers: Sequence[int], fleets: Sequence[int]
) -> list[Fault]:
    """Return the faults of a run of `seconds`, each kind at least once; the same arguments give the same faults.

    `workers` and `fleets` are the positions of the possible victims.
    """
    chosen = random.Random(seed)
    count = max(len(kinds), int(seconds / _EVERY)) if kinds else 0
    names: list[str] = []
    while len(names) < count:
        names += chosen.sample(list(kinds), len(kinds))
    width = seconds * (_LAST - _FIRST) / max(1, count)
    faults = []
    for number, name in enumerate(names[:count]):
        kind = KINDS[name]
        victims = {"fleet": fleets, "worker": workers}.get(kind.target, [*workers, *fleets])
        at = seconds * _FIRST + (number + chosen.random()) * width
        faults.append(Fault(name, at, chosen.choice(victims), chosen.uniform(kind.least, kind.most)))
    return faults
