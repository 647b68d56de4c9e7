"""`redis-worker chaos`: breaks everything around the workers and shows that nothing is lost."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from redis_worker.cli.options import option

F = TypeVar("F", bound=Callable[..., Any])

_MODES = ("pool", "topics", "at-most-once", "cron", "cluster")

EPILOG = """
\b
Examples:
  redis-worker chaos --minutes 0.5
  redis-worker chaos --processor myjobs:resize --task '["photo-{n}.jpg"]' --report chaos.html
  redis-worker chaos --mode topics --seed 7

Without --url it starts a private server (the extra embedded). It exits with 1, and prints the history of the first
offending task, if a promise is broken. Every option can also be set in the environment, as REDIS_WORKER_CHAOS_TASKS
and so on: the variables of the other commands are not meant.
"""


def _option(name: str, *rest: str, **settings: Any) -> Callable[[F], F]:
    long = (name, *rest)[-1] if name == "-y" else name
    return option(name, *rest, envvar="REDIS_WORKER_CHAOS_" + long[2:].upper(), **settings)


@click.command(epilog=EPILOG)
@_option("--mode", type=click.Choice(_MODES), default="pool", show_default=True, help="Use of redis-worker to try.")
@_option("--processor", metavar="NAME", help="Your own work: a processor; for topics a handler, for cron a job.")
@_option("--parser", default="list", show_default=True, metavar="NAME", help="Parser of the tasks.")
@_option("--task", metavar="JSON", help="A task, or the data of a message; {n} in it becomes its number.")
@_option("--tasks", type=click.IntRange(1), default=20_000, show_default=True, help="Number of tasks to push.")
@_option("--minutes", type=click.FloatRange(0.05, 1440), default=2, show_default=True, help="Length of the run.")
@_option("--seed", type=click.IntRange(0), metavar="N", help="Repeat the faults of an earlier run.")
@_option("--fault", "faults", multiple=True, metavar="NAME", help="Inflict only this fault; may be given repeatedly.")
@_option("--replica", is_flag=True, help="Start the server with a replica, which takes over now and then.")
@_option("--url", metavar="URL", help="Use this server instead, with keys of a new name, which are removed.")
@_option("-y", "--yes", is_flag=True, help="Do not ask for confirmation of --url.")
@_option("--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write an HTML page.")
@_option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, and nothing else.")
def chaos(
    url: str | None,
    yes: bool,
    minutes: float,
    seed: int | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Break workers, network and server on purpose, and show that no task is lost."""
    from redis_worker.chaos.options import Options
    from redis_worker.chaos.outcome import run_chaos
    from redis_worker.cli.printing import explained

    if url is not None:
        _confirm(url, yes)
    seed = random.randrange(10**6) if seed is None else seed
    options = Options(url=url, seconds=minutes * 60, seed=seed, **settings)
    if url is None:
        return run_chaos(options, as_json)
    with explained(url, "cannot use the server of --url"):
        return run_chaos(options, as_json)


def _confirm(url: str, yes: bool) -> None:
    """Ask whether the server may be used. Raises click.UsageError without a terminal, click.Abort for a no."""
    from redis_worker.broker.connection.address import address_of, mask

    address_of(url)
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask for confirmation: use --yes to put load on the server of --url")
    click.confirm(f"Push tasks to {mask(url)}, in keys named chaos:…, and delete these keys afterwards?", abort=True)
