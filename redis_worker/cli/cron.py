"""`redis-worker cron`: lists the cron jobs of a file and runs one by hand."""

from __future__ import annotations

import click

from redis_worker.cli.options import ENVIRONMENT, log_options, option
from redis_worker.cli.plans import file_argument

EPILOG = f"""
\b
Examples:
  redis-worker cron list
  redis-worker cron list workers.toml --json
  redis-worker cron run sync_user workers.toml

FILE is workers.toml by default.

{ENVIRONMENT} FILE is REDIS_WORKER_CONFIG.
"""


@click.group(epilog=EPILOG)
def cron() -> None:
    """List the cron jobs of a file, and run one by hand."""


@cron.command("list", epilog=EPILOG)
@file_argument
@option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def list_(file: str, as_json: bool) -> None:
    """List the jobs, with the next instant and the last outcome of each."""
    import asyncio

    from redis_worker.cli.cronjobs import show_jobs

    asyncio.run(show_jobs(file, as_json))


@cron.command("run", epilog=EPILOG)
@click.argument("name")
@file_argument
@log_options
def run(name: str, file: str, verbose: bool, log_level: str, log_format: str) -> int:
    """Run the job NAME now, regardless of its schedule, and record the outcome.

    With overlap "skip", a job that is already running does not run again. Exits 1 unless the run succeeds.
    """
    import asyncio

    from redis_worker.cli import logs
    from redis_worker.cli.cronjobs import run_job

    logs.configure("debug" if verbose else log_level, log_format, everything=True)
    return asyncio.run(run_job(file, name))
