"""`redis-worker check`: checks a file, or a worker declared in Python, and lists the parts that would run."""

from __future__ import annotations

import click

from redis_worker.cli.options import ENVIRONMENT, option
from redis_worker.cli.plans import no_file_options, plan_options

EPILOG = f"""
\b
Examples:
  redis-worker check
  redis-worker check workers.toml --only pools,sync_user
  redis-worker check workers.toml --except cron
  redis-worker check shop.workers:worker
  redis-worker check workers.toml --connect

FILE is workers.toml by default. The command imports the modules that the file names; it starts nothing, and connects
to nothing without --connect. Exits 2 if there are mistakes, with a line for each, and 3 if only servers object. The
format of the file: docs/supervisor_file.md.

{ENVIRONMENT} FILE is REDIS_WORKER_CONFIG.
"""


@click.command(epilog=EPILOG)
@plan_options
@option("--connect", is_flag=True, help="Ask the brokers and databases of Kafka parts: topics, tables, columns, keys.")
def check(file: str, only: tuple[str, ...], without: tuple[str, ...], connect: bool) -> int:
    """Check a file of workers and cron jobs, and list the parts that would run."""
    import asyncio

    from redis_worker.cli.declared import describe_declared, find_declared, is_declared
    from redis_worker.cli.describing import describe
    from redis_worker.cli.logs import complain_of
    from redis_worker.file.mistakes import FileMistakes
    from redis_worker.file.reading import read_plan
    from redis_worker.file.resolving import resolved, server_mistakes

    if is_declared(file):
        no_file_options(file, only, without, False)
        for line in describe_declared(file, find_declared(file, None)):
            click.echo(line)
        return 0
    plan = resolved(lambda: read_plan(file, only=only, without=without))
    objections = asyncio.run(server_mistakes(plan)) if connect else []
    if objections:
        complain_of(FileMistakes(plan.path, objections))
        return 3
    for line in describe(plan):
        click.echo(line)
    return 0
