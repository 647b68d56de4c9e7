"""Rows of figures, their comparison with targets, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median, quantiles

_HEAD = ("", "figure", "spread", "ratio", "target", "", "worker, server: us a task")


class Verdict(Enum):
    """A comparison with a target."""

    MET = "met"
    NEAR = "met within noise"
    MISSED = "MISSED"


def judged(figures: Sequence[float], bare: Sequence[float], target: float, *, at_most: bool = False) -> Verdict:
    """Compare the ratio of `figures` to those of a reference with its `target`; both have one for each round.

    The target is missed only if the ratio of the favourable quartiles misses it as well as that of the medians.
    """
    sign = -1 if at_most else 1
    own, others = _quartiles(figures), _quartiles(bare)
    if sign * median(figures) / median(bare) >= sign * target:
        return Verdict.MET
    best = own[0] / others[1] if at_most else own[1] / others[0]
    return Verdict.NEAR if sign * best >= sign * target else Verdict.MISSED


def _quartiles(figures: Sequence[float]) -> tuple[float, float]:
    """Return the lower and the upper quartile."""
    if len(figures) < 2:
        return figures[0], figures[0]
    lower, _, upper = quantiles(figures, n=4, method="inclusive")
    return lower, upper


@dataclass(frozen=True)
class Row:
    """One figure with its target."""

    name: str
    figure: str
    spread: str = ""
    ratio: float | None = None
    """The ratio to the figure of the bare loop, or of the first row of its group."""
    target: str = ""
    met: Verdict | bool | None = None
    """None without a target; True or False for a figure that is measured once."""
    cost: str = ""
    """CPU time of worker and server for each task, in microseconds."""

    @property
    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = self.verdict
        return self.name, self.figure, self.spread, ratio, self.target, verdict.value if verdict else "", self.cost

    @property
    def verdict(self) -> Verdict | None:
        """The comparison with the target; None without one."""
        if isinstance(self.met, bool):
            return Verdict.MET if self.met else Verdict.MISSED
        return self.met


def rated(
    name: str,
    rates: Sequence[float],
    bare: Sequence[float] | None = None,
    target: float | None = None,
    *,
    cost: str = "",
    unit: str = "",
) -> Row:
    """Return the row of a contender's rates, in tasks or `unit` per second, one for each round.

    `bare` are the rates of the reference, `target` is the least ratio to them.
    """
    return Row(
        name,
        f"{median(rates):,.0f}{unit}/s",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        None if bare is None else median(rates) / median(bare),
        "" if bare is None or target is None else f"at least {target}",
        None if bare is None or target is None else judged(rates, bare, target),
        cost,
    )


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
