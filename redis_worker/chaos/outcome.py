"""The outcome of a run, as lines of text or as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from redis_worker.chaos.display import Display, Tone, open_display
from redis_worker.chaos.driver import Story, perform, steps_of
from redis_worker.chaos.options import Options
from redis_worker.chaos.report import write_report
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.text import visible

_INTERRUPTED = 130
# Lines of the history of a task, and sentences about violations.
_MOST_STEPS, _MOST_VIOLATIONS = 60, 10


def run_chaos(options: Options, as_json: bool) -> int:
    """Run it and print the outcome. Return 0, 1 if a promise was broken, or 130 if interrupted.

    Raises RedisWorkerError if it cannot run.
    """
    if options.report is not None:
        write_report(Story(), options)  # an error must not show only at the end of a long run
    with nullcontext(_Quiet()) if as_json else open_display() as display:
        story = asyncio.run(perform(options, display))
        return _print_outcome(story, options, display, as_json)


def _print_outcome(story: Story, options: Options, display: Display, as_json: bool) -> int:
    """Print the outcome and write the report. Return the exit code. Raises ConfigurationError."""
    if options.report is not None:
        write_report(story, options)
    if as_json:
        print(dumps(_json(story, options)).decode(), flush=True)
    else:
        lines = [*_history(story), *(f"  {visible(line.text)}" for line in story.violations[:_MOST_VIOLATIONS])]
        tone: Tone = "bad" if story.violations or not story.is_complete else "good"
        numbers = ", ".join(f"{name} {number}" for name, number in story.counts.items()) or "nothing is known"
        display.finish([*lines, f"  {numbers}"], f"  {_verdict(story)} To repeat it: {options.command()}", tone)
    if story.violations:
        return 1
    return 0 if story.is_complete else _INTERRUPTED


def _history(story: Story) -> Iterator[str]:
    if (first := story.first_offence()) is not None:
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
