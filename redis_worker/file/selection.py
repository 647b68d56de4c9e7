"""Which of the parts in a file run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis_worker.file.entries import Entry, Group, names_of
from redis_worker.file.mistakes import near
from redis_worker.file.substitution import UNSET

Blame = Callable[[int, str], None]
"""Called with the number of an entry, and what is wrong with it."""


def select(
    worker: Group, groups: Mapping[str, Group], entries: list[Entry], only: Sequence[str], without: Sequence[str]
) -> None:
    """Give a reason to all that do not run; names that there are not are noted as mistakes.

    `only`, if it has any names, goes before what [worker] says. A list without names means all, wherever it stands.
    """
    document = worker.table.document
    if worker.said.get("enable") is False:
        _leave_out(entries, "worker.enable = false")
    for kind in ("cron", "daemons"):
        _select_jobs(kind, groups[kind], entries)

    def blame_argument(option: str) -> Blame:
        return lambda _, text: document.blame_nobody(f"{option}: {text}")

    excepted = _chosen(entries, without, blame_argument("--except"))
    _leave_out([entry for entry in entries if entry.qualified in excepted], "in --except")
    of_file = _chosen(
        entries,
        _strings(worker.table.values.get("only")),
        lambda index, text: document.blame(("worker", "only", index), text),
    )
    of_call = _chosen(entries, only, blame_argument("--only"))
    if only or worker.said.get("only"):
        chosen = of_call if only else of_file
        _leave_out([entry for entry in entries if entry.qualified not in chosen], "not in only")


def _select_jobs(kind: str, group: Group, entries: list[Entry]) -> None:
    own = {entry.name: entry for entry in entries if entry.kind == kind}
    for index, name in enumerate(_strings(group.table.values.get("jobs"))):
        if isinstance(name, str) and name not in own:
            what = "job" if kind == "cron" else "daemon"
            group.table.document.blame(
                (kind, "jobs", index), f"there is no {what} {str(name)!r}, {near(name, tuple(own))}"
            )
    if chosen := group.said.get("jobs"):
        _leave_out([entry for name, entry in own.items() if name not in chosen], f"not in {kind}.jobs")


def _chosen(entries: list[Entry], names: Sequence[Any], blame: Blame) -> set[str]:
    """The qualified names of what `names` mean."""
    chosen: set[str] = set()
    for index, name in enumerate(names):
        if name is UNSET:
            continue
        found = {entry.qualified for entry in entries if name in (entry.name, entry.qualified, entry.kind)}
        if not found:
            known = tuple(dict.fromkeys(names_of(entries)))
            blame(index, f"there is nothing named {name!r} in the file, {near(name, known)}")
        chosen |= found
    return chosen


def _strings(value: Any) -> Sequence[Any]:
    """The names in a list, with those that are not known in their places; none, where it is no list of names."""
    return value if isinstance(value, list) and all(isinstance(item, str) or item is UNSET for item in value) else ()


def _leave_out(entries: list[Entry], reason: str) -> None:
    for entry in entries:
        entry.reason = entry.reason or reason
