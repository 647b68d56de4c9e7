"""The status as tables of text that fit a screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import NamedTuple, TypeVar

from redis_worker.broker.operator.status import QueueStatus, Status
from redis_worker.broker.operator.worker_status import WorkerStatus
from redis_worker.cli.table_cells import GROUP, JOB, NONE, PART, PART_TEXTS, PART_WITHOUT_LAG, age, jobs_of, parts_of
from redis_worker.vocabulary.text import visible

T = TypeVar("T")

# The gap between two columns.
_BETWEEN = "  "
# Longer texts are truncated.
_WIDEST = 40
# Lines besides rows: two headings, two notes on omitted rows, an empty line, and the prompt.
_OTHER_LINES = 6
# The same for each further table: an empty line, the headings and a note.
_AROUND = 3


class Table(NamedTuple):
    """Rows of text under headings."""

    headings: list[str]
    rows: list[list[str]]
    note: str = ""
    """The number of omitted rows, or a note that the table is empty."""

    def widths(self) -> list[int]:
        """Return the width of each column."""
        return [max(map(len, column)) for column in zip(self.headings, *self.rows, strict=True)]

    def within(self, width: int | None) -> Table:
        """Return the table without the columns beyond `width` characters (None: no limit)."""
        if width is None:
            return self
        ends = accumulate(self.widths(), lambda end, column: end + len(_BETWEEN) + column)
        count = max(1, sum(end <= width for end in ends))
        return self._replace(headings=self.headings[:count], rows=[row[:count] for row in self.rows])


def tables(status: Status, lines: int) -> list[Table]:
    """Return the tables of queues, workers and, if any, parts and cron jobs, in about `lines` lines together."""
    parts, jobs = parts_of(status), jobs_of(status)
    lines -= _AROUND * sum(map(bool, (parts, jobs, status.kafka))) + len(status.kafka)
    # Queues and workers keep half of the room, if they need it.
    queue_rows = len(status.queues) + len(status.workers)
    room = max(0, lines - _OTHER_LINES - min(queue_rows, lines // 2))
    most = min(len(parts), max(room // 2, room - len(jobs), 1))
    some = min(len(jobs), max(room - most, 1))
    shown = _queues_and_workers(status, lines - most - some) if status.queues or not status.kafka else []
    if status.kafka:
        shown.append(_table(GROUP, status.kafka, 0, "topic"))
    if parts:
        columns = PART if any(each.part.lag is not None for each in parts) else PART_WITHOUT_LAG
        shown.append(_table(columns, parts[:most], len(parts) - most, "part"))
    if jobs:
        shown.append(_table(JOB, jobs[:some], len(jobs) - some, "cron job"))
    return shown


def _queues_and_workers(status: Status, lines: int) -> list[Table]:
    room = max(2, lines - _OTHER_LINES)
    queues = min(len(status.queues), max(room // 2, room - len(status.workers)))
    # If not all fit, idle ones are omitted.
    first = sorted(status.queues, key=lambda queue: (_is_idle(queue), queue.name))[: max(1, queues)]
    shown = [queue for queue in status.queues if queue in first]
    columns = _QUEUE | (_PARKED if any(queue.parked for queue in shown) else {})
    columns |= _PROBLEM if any(queue.problem for queue in shown) else {}
    return [
        _table(columns, shown, len(status.queues) - len(shown), "queue"),
        _table(_WORKER, status.workers[: room - queues], len(status.workers) - (room - queues), "worker"),
    ]


def _is_idle(queue: QueueStatus) -> bool:
    return not (queue.workers or queue.waiting or queue.delayed or queue.in_flight or queue.parked or queue.problem)


def _table(columns: dict[str, Callable[[T], str]], items: list[T], left_out: int, noun: str) -> Table:
    rows = [clean(cell(item) for cell in columns.values()) for item in items]
    note = "" if rows else f"no {noun}s"
    if left_out > 0:
        note = f"and {left_out} more {noun}{'s' if left_out > 1 else ''}; --json shows all"
    return Table(list(columns), rows, note)


def plain(table: Table) -> str:
    """Return the table as aligned columns."""
    widths = table.widths()
    is_text = [heading in TEXTS for heading in table.headings]
    lines = []
    for row in (table.headings, *table.rows):
        padded = (
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        )
        lines.append(_BETWEEN.join(padded).rstrip())
    return "\n".join([*lines, table.note] if table.note else lines)


def clean(cells: Iterable[str]) -> list[str]:
    """Return `cells` on one line each, truncated, control characters escaped: any program may have written them."""
    shown = map(visible, cells)
    return [text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…" for text in shown]


def _oldest(worker: WorkerStatus) -> str:
    if not worker.tasks:
        return NONE
    task = worker.tasks[0]
    # The age comes first, so that a long id cannot push it out.
    known = (task.function, task.progress, task.id or "?")
    return " ".join([age(task.seconds), *(text for text in known if text is not None)])


def _count(name: str) -> Callable[[WorkerStatus], str]:
    return lambda worker: f"{worker.counters.get(name, 0):,}"


TEXTS = frozenset({"queue", "problem", "worker", "state", "host", "processor", "oldest", "version", *PART_TEXTS, "due"})
"""Headings of left-aligned columns; the others hold numbers."""

_QUEUE: dict[str, Callable[[QueueStatus], str]] = {
    "queue": lambda queue: queue.name,
    "waiting": lambda queue: f"{queue.waiting:,}",
    "delayed": lambda queue: f"{queue.delayed:,}",
    "in flight": lambda queue: f"{queue.in_flight:,}",
    "dead": lambda queue: f"{queue.dead:,}",
    "dropped": lambda queue: f"{queue.dropped:,}",
    "rate/s": lambda queue: f"{queue.rate:,.1f}",
    "workers": lambda queue: str(queue.workers),
}
_PARKED: dict[str, Callable[[QueueStatus], str]] = {"parked": lambda queue: f"{queue.parked:,}"}
_PROBLEM: dict[str, Callable[[QueueStatus], str]] = {"problem": lambda queue: queue.problem or ""}

# The least important columns come last: a narrow terminal drops them.
_WORKER: dict[str, Callable[[WorkerStatus], str]] = {
    "state": lambda worker: "alive" if worker.alive else "stale",
    "worker": lambda worker: worker.name,
    "queue": lambda worker: worker.queue,
    "running": lambda worker: f"{worker.running}/{worker.concurrency or '?'}",
    "oldest": _oldest,
    "processed": _count("processed"),
    "failed": _count("failed"),
    "rate/s": lambda worker: f"{worker.rate:,.1f}",
    "processor": lambda worker: worker.processor or NONE,
    "seen": lambda worker: age(worker.seen),
    "host": lambda worker: worker.host or NONE,
    "pid": lambda worker: str(worker.pid or NONE),
    "version": lambda worker: worker.version or NONE,
}
