"""Displays: progress bars on a terminal with rich installed, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Tone = Literal["plain", "bad", "good"]

_STYLES = {"plain": "", "bad": "bold red", "good": "bold green"}
# Interval between the progress lines of a queue, in seconds.
_EVERY = 2.0


class Display:
    """An output of the demo: plain lines."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown: dict[str, tuple[int, float]] = {}

    def say(self, text: str, tone: Tone = "plain") -> None:
        """Print an event, with the time since the start."""
        self._print(f"{time.monotonic() - self._started:6.1f} s  {text}", tone)

    def show(self, processor: str, settled: int, pushed: int) -> None:
        """Show the progress of a queue."""
        now = time.monotonic()
        before, at = self._shown.setdefault(processor, (0, now))
        if settled != before and (settled == pushed or now - at >= _EVERY):
            self._shown[processor] = settled, now
            self.say(f"{processor}: {settled:,} of {pushed:,} tasks done")

    def finish(self, lines: list[str], last: str, tone: Tone) -> None:
        """Print the ledger and the verdict, at the end."""
        for line in ("", *lines, ""):
            self._print(line, "plain")
        self._print(last, tone)

    def _print(self, text: str, tone: Tone) -> None:  # noqa: ARG002 - lines have no colours
        print(text, flush=True)


class _Bars(Display):
    """Progress bars, below coloured lines."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, processor: str, settled: int, pushed: int) -> None:
        if processor not in self._bars:
            self._bars[processor] = self._progress.add_task(processor, total=pushed)
        self._progress.update(self._bars[processor], completed=settled)

    def finish(self, lines: list[str], last: str, tone: Tone) -> None:
        self._progress.stop()  # so that the bars stay above
        super().finish(lines, last, tone)

    def _print(self, text: str, tone: Tone) -> None:
        # Left to the terminal, long lines wrap; rich would cut words out of the table.
        self._progress.console.print(text, style=_STYLES[tone], markup=False, highlight=False, soft_wrap=True)


@contextmanager
def open_display() -> Iterator[Display]:
    """Open the best available display."""
    try:
        if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            raise ImportError
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        yield Display()
        return
    columns = (
        TextColumn("          {task.description:<9}"),
        BarColumn(30, complete_style="cyan", finished_style="green"),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
    )
    with Progress(*columns, refresh_per_second=20) as progress:
        yield _Bars(progress)
