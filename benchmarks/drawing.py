"""Curves as SVG, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# A grey and colours with enough contrast to white and to black.
_INK = "#7d8590"
_COLOURS = ("#2f81f7", "#d9730d", "#2da44e", "#a371f7")


class Curve(NamedTuple):
    """Rates by what is varied."""

    title: str
    points: Sequence[tuple[int, float]]


class Picture(NamedTuple):
    """Curves with the same axes; the horizontal one is logarithmic."""

    name: str
    title: str
    unit: str
    """The unit of the horizontal axis."""
    curves: Sequence[Curve]
    log: bool = False
    """True for a logarithmic vertical axis; otherwise it starts at 0."""


def draw(picture: Picture, path: Path) -> None:
    """Write a picture."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text; the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": picture.name, "font.size": 11})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 3.6))
    for curve, colour in zip(picture.curves, _COLOURS, strict=False):
        xs, ys = zip(*curve.points, strict=True)
        axes.plot(xs, ys, marker="o", markersize=5, linewidth=2, color=colour, label=curve.title)
    _scale(axes, picture)
    axes.set_title(picture.title, color=_INK, loc="left", fontsize=12)
    axes.set_xlabel(picture.unit, color=_INK)
    axes.set_ylabel("tasks/s", color=_INK)
    axes.legend(frameon=False, labelcolor=_INK)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None})
    pyplot.close(figure)


def _scale(axes: Any, picture: Picture) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    plain = FuncFormatter(lambda value, _: _short(value))
    ticks = sorted({x for curve in picture.curves for x, _ in curve.points})
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())
    if picture.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0, top=1.1 * max(y for curve in picture.curves for _, y in curve.points))
    axes.yaxis.set_major_formatter(plain)
    axes.tick_params(colors=_INK)
    axes.tick_params(which="minor", length=0)
    axes.grid(color=_INK, alpha=0.25, linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)


def _short(value: float) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
