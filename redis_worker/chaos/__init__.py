"""Chaos: workers at work, faults that a seed determines, and a ledger that follows each task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis_worker.chaos.options import Options


def run_chaos(options: Options, as_json: bool) -> int:
    """Run it and print the outcome. Return 0, 1 if a promise was broken, or 130 if interrupted.

    Raises RedisWorkerError if it cannot run.
    """
    import asyncio

    from redis_worker.chaos.display import open_display
    from redis_worker.chaos.driver import perform
    from redis_worker.chaos.outcome import check_report, print_outcome, quiet

    check_report(options)
    with quiet() if as_json else open_display() as display:
        story = asyncio.run(perform(options, display))
        return print_outcome(story, options, display, as_json)
