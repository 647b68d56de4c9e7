"""The outcome of a run, as lines of text or as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis_worker.chaos.display import Display, Tone
from redis_worker.chaos.driver import Story, steps_of
from redis_worker.chaos.options import Options
from redis_worker.chaos.report import write_report
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.text import visible

_INTERRUPTED = 130
# Lines of the history of a task, and sentences about violations.
_MOST_STEPS, _MOST_VIOLATIONS = 60, 10


def check_report(options: Options) -> None:
    """Raise ConfigurationError if the report cannot be written: this must not show at the end of a long run."""
    if options.report is not None:
        write_report(Story(), options)


def print_outcome(story: Story, options: Options, display: Display, as_json: bool) -> int:
    """Print the outcome and write the report. Return the exit code. Raises ConfigurationError."""
    if options.report is not None:
        write_report(story, options)
    if as_json:
        print(dumps(_json(story, options)).decode(), flush=True)
    else:
        lines = [*_history(story), *(f"  {visible(line.text)}" for line in story.violations[:_MOST_VIOLATIONS])]
        tone: Tone = "bad" if story.violations or not story.is_complete else "good"
        display.finish([*lines, f"  {summary(story)}"], f"  {_verdict(story)} To repeat it: {options.command()}", tone)
    if story.violations:
        return 1
    return 0 if story.is_complete else _INTERRUPTED


def summary(story: Story) -> str:
    """Return the numbers of a run on one line."""
    return ", ".join(f"{name} {number}" for name, number in story.counts.items()) or "nothing is known"


def _history(story: Story) -> Iterator[str]:
    first = next((violation for violation in story.violations if violation.history), None)
    if first is None:
        return
    yield f"  History of task {visible(first.id)}:"
    for at, text in steps_of(story, first)[:_MOST_STEPS]:
        yield f"  {at:8.2f} s  {visible(text)}"
    yield ""


def _verdict(story: Story) -> str:
    if not story.violations:
        faults = len(story.inflicted)
        return f"{faults} fault{'s' * (faults != 1)}." if story.is_complete else "Interrupted."
    count = len(story.violations)
    return f"{count} promise{'s' * (count > 1)} broken: this is a defect, please report it."


def _json(story: Story, options: Options) -> dict[str, Any]:
    return {
        "mode": options.mode,
        "seed": options.seed,
        "complete": story.is_complete,
        **{name.replace(" ", "_"): number for name, number in story.counts.items()},
        "seconds": round(time.time() - story.started, 1),
        "faults": [
            {"kind": fault.kind, "at": round(fault.begin - story.started, 3), "text": fault.text}
            for fault in story.inflicted
        ],
        "violations": [
            {"id": violation.id, "text": violation.text, "history": steps_of(story, violation)}
            for violation in story.violations
        ],
        "repeat": options.command(),
    }


class _Quiet(Display):
    """A display that shows nothing: the JSON at the end is all."""

    def _print(self, text: str, tone: Tone) -> None:
        pass


@contextmanager
def quiet() -> Iterator[Display]:
    """Open a display that shows nothing."""
    yield _Quiet()
