"""Displays: progress bars on a terminal with rich installed, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Tone = Literal["plain", "bad", "good"]

_STYLES = {"plain": "", "bad": "bold red", "good": "bold green"}
# Interval between the progress lines of a queue, in seconds.
_EVERY = 2.0


class Display(Protocol):
    """An output of the demo."""

    def say(self, text: str, tone: Tone = "plain") -> None:
        """Print an event, with the time since the start."""

    def show(self, processor: str, settled: int, pushed: int) -> None:
        """Show the progress of a queue."""

    def finish(self, lines: list[str], last: str, tone: Tone) -> None:
        """Print the ledger and the verdict, at the end."""


@contextmanager
def open_display() -> Iterator[Display]:
    """Open the best available display."""
    try:
        if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            raise ImportError
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        yield _Lines()
        return
    columns = (
        TextColumn("          {task.description:<9}"),
        BarColumn(30, complete_style="cyan", finished_style="green"),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
    )
    with Progress(*columns, refresh_per_second=20) as progress:
        yield _Bars(progress)


def _stamped(started: float, text: str) -> str:
    """Return `text` after the time since the start."""
    return f"{time.monotonic() - started:6.1f} s  {text}"


class _Lines:
    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown: dict[str, tuple[int, float]] = {}

    def say(self, text: str, tone: Tone = "plain") -> None:  # noqa: ARG002 - lines have no colours
        print(_stamped(self._started, text), flush=True)

    def show(self, processor: str, settled: int, pushed: int) -> None:
        now = time.monotonic()
        before, at = self._shown.setdefault(processor, (0, now))
        if settled != before and (settled == pushed or now - at >= _EVERY):
            self._shown[processor] = settled, now
            self.say(f"{processor}: {settled:,} of {pushed:,} tasks done")

    def finish(self, lines: list[str], last: str, tone: Tone) -> None:  # noqa: ARG002
        print("", *lines, "", last, sep="\n", flush=True)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._started = time.monotonic()
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def say(self, text: str, tone: Tone = "plain") -> None:
        self._print(_stamped(self._started, text), tone)

    def show(self, processor: str, settled: int, pushed: int) -> None:
        if processor not in self._bars:
            self._bars[processor] = self._progress.add_task(processor, total=pushed)
        self._progress.update(self._bars[processor], completed=settled)

    def finish(self, lines: list[str], last: str, tone: Tone) -> None:
        self._progress.stop()  # so that the bars stay above
        for line in ("", *lines, ""):
            self._print(line, "plain")
        self._print(last, tone)

    def _print(self, text: str, tone: Tone) -> None:
        # Left to the terminal, long lines wrap; rich would cut words out of the table.
        self._progress.console.print(text, style=_STYLES[tone], markup=False, highlight=False, soft_wrap=True)
