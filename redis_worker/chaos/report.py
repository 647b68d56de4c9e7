"""The report of a run: one HTML page without external resources, with a timeline of faults over throughput."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from redis_worker.chaos.driver import Sample, Story, steps_of
from redis_worker.chaos.faults import KINDS
from redis_worker.chaos.options import Options
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.text import visible

# Sizes in the drawing.
_WIDTH, _LEFT, _RIGHT = 1000, 110, 20
_CURVE_TOP, _CURVE = 20, 200
_LANE = 18
_MOST_VIOLATIONS = 20

_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1f2328, #e6edf3); --faint: light-dark(#8b949e, #7d8590);
  --done: #2da44e; --pushed: #0969da; --fault: #cf222e; --line: light-dark(#d0d7de, #30363d); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1040px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.axis { stroke: var(--line); } .done { fill: var(--done); fill-opacity: .35; stroke: var(--done); }
.pushed { fill: none; stroke: var(--pushed); stroke-dasharray: 4 3; } .fault { fill: var(--fault); }
.faint, svg text.faint { color: var(--faint); fill: var(--faint); }
dl { display: flex; flex-wrap: wrap; gap: .5em 2em; } dt { color: var(--faint); } dd { margin: 0; font-size: 1.4em; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .1em 1em .1em 0; vertical-align: top; }
td:first-child, th:first-child { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--done); } .bad { color: var(--fault); }
"""


def write_report(story: Story, options: Options) -> None:
    """Write the page to the file of the options. Raises ConfigurationError."""
    assert options.report is not None
    try:
        options.report.write_text("\n".join(_page(story, options)) + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigurationError(f"the report cannot be written to {options.report}: {error.strerror}") from None


def _page(story: Story, options: Options) -> Iterator[str]:
    title = f"redis-worker chaos: {options.mode}, seed {options.seed}"
    yield f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>"
    yield f"<p>{_verdict(story)} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(story.started))}.</p>"
    numbers = (f"<div><dt>{escape(name)}</dt><dd>{number:,}</dd></div>" for name, number in story.counts.items())
    yield f"<dl>{''.join(numbers)}</dl>"
    yield from _timeline(story)
    yield from _violations(story)
    yield "<h2>Faults</h2>\n<table>\n<tr><th>s</th><th>took s</th><th></th></tr>"
    for fault in story.inflicted:
        at, took = fault.begin - story.started, fault.end - fault.begin
        yield f"<tr><td>{at:.1f}</td><td>{took:.1f}</td><td>{escape(fault.text)}</td></tr>"
    yield f"</table>\n<p>To repeat it: <code>{escape(visible(options.command()))}</code></p>\n</body>\n</html>"


def _verdict(story: Story) -> str:
    if story.violations:
        return f'<strong class="bad">{len(story.violations)} promises are broken.</strong>'
    if not story.is_complete:
        return '<strong class="bad">The run was interrupted.</strong>'
    faults = len(story.inflicted)
    return f'<strong class="good">All promises are kept</strong> through {faults} fault{"s" * (faults != 1)}.'


def _timeline(story: Story) -> Iterator[str]:
    """Yield the drawing: throughput at the top, a lane for each kind of fault below."""
    samples = story.samples
    kinds = [name for name in KINDS if any(fault.kind == name for fault in story.inflicted)]
    length = max(1.0, samples[-1].at - story.started) if samples else 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / length
    base = _CURVE_TOP + _CURVE
    height = base + 30 + _LANE * len(kinds) + 10
    yield f'<h2>Timeline</h2>\n<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Faults over throughput">'
    settled = _rates(samples, "settled", story.started)
    pushed = _rates(samples, "pushed", story.started)
    top = max([1.0, *(rate for _, rate in (*settled, *pushed))])
    for part in (0.0, 0.5, 1.0):
        y = base - part * _CURVE
        yield f'<line class="axis" x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>'
        yield f'<text class="faint" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{part * top:,.0f}/s</text>'
    for tick in _ticks(length):
        x = _LEFT + tick * scale
        yield f'<line class="axis" x1="{x:.1f}" y1="{_CURVE_TOP}" x2="{x:.1f}" y2="{height - 8}"/>'
        yield f'<text class="faint" x="{x:.1f}" y="{base + 16}" text-anchor="middle">{tick:g} s</text>'
    yield _path("done", settled, scale, _CURVE / top, closed=True)
    yield _path("pushed", pushed, scale, _CURVE / top, closed=False)
    yield f'<text x="{_LEFT}" y="12">done with (area) and pushed (dashed), each second</text>'
    for lane, kind in enumerate(kinds):
        y = base + 30 + lane * _LANE
        yield f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{kind}</text>'
        for fault in story.inflicted:
            if fault.kind == kind:
                x, width = _LEFT + (fault.begin - story.started) * scale, (fault.end - fault.begin) * scale
                yield (
                    f'<rect class="fault" x="{x:.1f}" y="{y}" width="{max(3.0, width):.1f}" height="{_LANE - 5}">'
                    f"<title>{escape(fault.text)}</title></rect>"
                )
    yield "</svg>"


def _rates(samples: Sequence[Sample], name: str, started: float) -> list[tuple[float, float]]:
    """Return the rate in each interval of the samples: seconds after the start, and number a second."""
    return [
        (later.at - started, (getattr(later, name) - getattr(former, name)) / max(0.1, later.at - former.at))
        for former, later in pairwise(samples)
    ]


def _path(name: str, points: Sequence[tuple[float, float]], scale: float, height: float, *, closed: bool) -> str:
    base = _CURVE_TOP + _CURVE
    places = [(_LEFT + at * scale, base - rate * height) for at, rate in points]
    if not places:
        return ""
    if closed:
        places = [(places[0][0], base), *places, (places[-1][0], base)]
    line = " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="{name}" d="M{line}{" Z" if closed else ""}"/>'


def _ticks(length: float) -> list[int]:
    step = next(step for step in (1, 2, 5, 10, 30, 60, 300, 1800, 7200, 86400) if length / step <= 12 or step == 86400)
    return list(range(0, int(length) + 1, step))


def _violations(story: Story) -> Iterator[str]:
    if not story.violations:
        return
    yield '<h2 class="bad">Broken promises</h2>\n<ul>'
    yield from (f"<li>{escape(visible(violation.text))}</li>" for violation in story.violations[:_MOST_VIOLATIONS])
    yield "</ul>"
    if (first := story.first_offence()) is not None:
        yield f"<h2>History of task {escape(visible(first.id))}</h2>\n<table>"
        for at, text in steps_of(story, first):
            yield f"<tr><td>{at:.2f}</td><td>{escape(visible(text))}</td></tr>"
        yield "</table>"
