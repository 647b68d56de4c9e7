"""Rows of figures, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = ("", "figure", "spread", "ratio", "target", "", "worker, server: us a task")


@dataclass(frozen=True)
class Row:
    """One figure with its target."""

    name: str
    figure: str
    spread: str = ""
    ratio: float | None = None
    """The ratio to the figure of the bare loop, or of the first row of its group."""
    target: str = ""
    met: bool | None = None
    """None without a target."""
    cost: str = ""
    """CPU time of worker and server for each task, in microseconds."""

    @property
    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return self.name, self.figure, self.spread, ratio, self.target, verdict, self.cost


def table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned Markdown table."""
    lines = [_HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    # Names align left, figures right.
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    head, *body = (_line(cells, widths) for cells in lines)
    return "\n".join([head, f"|{rule}|", *body])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return f"| {' | '.join([first, *rest])} |"
