"""`redis-worker check`: checks a file, or a worker declared in Python, and lists the parts that would run."""

from __future__ import annotations

import click

from redis_worker.cli.options import ENVIRONMENT
from redis_worker.cli.plans import no_file_options, plan_options

EPILOG = f"""
\b
Examples:
  redis-worker check
  redis-worker check workers.toml --only pools,sync_user
  redis-worker check workers.toml --except cron
  redis-worker check shop.workers:worker

FILE is workers.toml by default. The command imports the modules that the file names; it starts nothing and connects
to nothing. Exits 2 if there are mistakes, with a line for each. The format of the file: docs/supervisor_file.md.

{ENVIRONMENT} FILE is REDIS_WORKER_CONFIG.
"""


@click.command(epilog=EPILOG)
@plan_options
def check(file: str, only: tuple[str, ...], without: tuple[str, ...]) -> None:
    """Check a file of workers and cron jobs, and list the parts that would run."""
    from redis_worker.cli.declared import describe_declared, find_declared, is_declared
    from redis_worker.cli.describing import describe
    from redis_worker.file.reading import read_plan
    from redis_worker.file.resolving import resolved

    if is_declared(file):
        no_file_options(file, only, without, False)
        for line in describe_declared(file, find_declared(file, None)):
            click.echo(line)
        return
    for line in describe(resolved(lambda: read_plan(file, only=only, without=without))):
        click.echo(line)
