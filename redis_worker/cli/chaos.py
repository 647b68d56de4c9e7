"""`redis-worker chaos`: breaks everything around the workers and shows that nothing is lost."""

from __future__ import annotations

import random
from pathlib import Path

import click

from redis_worker.cli.options import option

_MODES = ("pool", "topics", "at-most-once", "cron", "cluster")

EPILOG = """
\b
Examples:
  redis-worker chaos --minutes 0.5
  redis-worker chaos --processor myjobs:resize --task '["photo-{n}.jpg"]' --report chaos.html
  redis-worker chaos --mode topics --seed 7
"""


@click.command(epilog=EPILOG)
@option("--mode", type=click.Choice(_MODES), default="pool", show_default=True, help="Use of redis-worker to try.")
@option("--processor", metavar="NAME", help="Your work: a processor, for topics a handler, for cron a job.")
@option("--parser", default="list", show_default=True, metavar="NAME", help="Parser of the tasks.")
@option("--task", metavar="JSON", help="A task, or data of a message; {n} in it becomes its number.")
@option("--tasks", type=click.IntRange(1), default=20_000, show_default=True, help="Number of tasks to push.")
@option("--minutes", type=click.FloatRange(0.05, 1440), default=2.0, show_default=True, help="Length of the run.")
@option("--seed", type=click.IntRange(0), metavar="N", help="Repeat the faults of an earlier run.")
@option("--fault", "faults", multiple=True, metavar="NAME", help="Inflict only this fault; may be repeated.")
@option("--report", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE", help="HTML page.")
@option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, and nothing else.")
def chaos(
    mode: str,
    processor: str | None,
    parser: str,
    task: str | None,
    tasks: int,
    minutes: float,
    seed: int | None,
    faults: tuple[str, ...],
    report: Path | None,
    as_json: bool,
) -> int:
    """Break workers, network and server on purpose, and show that no task is lost."""
    from redis_worker.chaos import run_chaos
    from redis_worker.chaos.options import Options

    options = Options(
        mode=mode,
        tasks=tasks,
        seconds=minutes * 60,
        seed=random.randrange(10**6) if seed is None else seed,
        processor=processor,
        parser=parser,
        task=task,
        faults=faults,
        report=report,
    )
    return run_chaos(options, as_json)
