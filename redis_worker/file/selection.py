"""The selection of the parts that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis_worker.file.document import Table
from redis_worker.file.entries import Entry, names_of
from redis_worker.file.mistakes import near
from redis_worker.file.substitution import UNSET

Blame = Callable[[int, str], None]
"""Called with the index of a name, and the message."""


def select(
    worker: Table, groups: Mapping[str, Table], entries: list[Entry], only: Sequence[str], without: Sequence[str]
) -> None:
    """Set the reason of each entry that does not run; record unknown names as mistakes.

    A non-empty `only` overrides that of [worker]. An empty list selects everything, on either side.
    """
    document = worker.document
    if worker.settings.get("enable") is False:
        _leave_out(entries, "worker.enable = false")
    for kind in ("cron", "daemons"):
        _select_jobs(kind, groups[kind], entries)

    def blame_argument(option: str) -> Blame:
        return lambda _, text: document.blame_file(f"{option}: {text}")

    excepted = _chosen(entries, without, blame_argument("--except"))
    _leave_out([entry for entry in entries if entry.qualified in excepted], "in --except")
    of_file = _chosen(
        entries,
        _strings(worker.values.get("only")),
        lambda index, text: document.blame(("worker", "only", index), text),
    )
    of_call = _chosen(entries, only, blame_argument("--only"))
    if only or worker.settings.get("only"):
        chosen = of_call if only else of_file
        _leave_out([entry for entry in entries if entry.qualified not in chosen], "not in only")


def _select_jobs(kind: str, group: Table, entries: list[Entry]) -> None:
    own = {entry.name: entry for entry in entries if entry.kind == kind}
    for index, name in enumerate(_strings(group.values.get("jobs"))):
        if isinstance(name, str) and name not in own:
            noun = "job" if kind == "cron" else "daemon"
            group.document.blame((kind, "jobs", index), f"unknown {noun} {str(name)!r}, {near(name, tuple(own))}")
    if chosen := group.settings.get("jobs"):
        _leave_out([entry for name, entry in own.items() if name not in chosen], f"not in {kind}.jobs")


def _chosen(entries: list[Entry], names: Sequence[Any], blame: Blame) -> set[str]:
    """Return the qualified names of the entries that `names` select."""
    chosen: set[str] = set()
    for index, name in enumerate(names):
        if name is UNSET:
            continue
        found = {entry.qualified for entry in entries if name in (entry.name, entry.qualified, entry.kind)}
        if not found:
            known = tuple(dict.fromkeys(names_of(entries)))
            blame(index, f"the file has nothing named {name!r}, {near(name, known)}")
        chosen |= found
    return chosen


def _strings(value: Any) -> Sequence[Any]:
    """Return a list of names, unset variables in place; empty if the value is not a list of names."""
    return value if isinstance(value, list) and all(isinstance(item, str) or item is UNSET for item in value) else ()


def _leave_out(entries: list[Entry], reason: str) -> None:
    for entry in entries:
        entry.reason = entry.reason or reason
