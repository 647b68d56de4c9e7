"""`redis-worker serve`: all that a file describes, in one process."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from redis_worker.cli.options import ENVIRONMENT, log_options, option
from redis_worker.cli.plans import plan_options

EPILOG = f"""
\b
Examples:
  redis-worker serve workers.toml
  redis-worker serve workers.toml --only fibonacci --only cron
  redis-worker serve workers.toml --watch --embedded

SIGHUP has the file read again: what has changed in it is stopped and started, all else goes on. The first SIGTERM
or Ctrl-C stops part by part, the last one first; a second one cancels what is left, a third one exits. SIGUSR1 logs
what runs.

{ENVIRONMENT}
Only --watch is REDIS_WORKER_SERVE_WATCH here.
"""


@click.command(epilog=EPILOG)
@plan_options
@option(
    "--watch",
    is_flag=True,
    envvar="REDIS_WORKER_SERVE_WATCH",  # REDIS_WORKER_WATCH is a folder, for run
    help="Read the file again when it changes.",
)
@option("--embedded", is_flag=True, help="Start a Redis server of its own, gone afterwards, in place of [redis] url.")
@log_options
def serve(
    file: str,
    only: tuple[str, ...],
    without: tuple[str, ...],
    watch: bool,
    embedded: bool,
    verbose: bool,
    log_level: str,
    log_format: str,
) -> int:
    """Run the pools, topics, daemons and cron jobs of a file."""
    from redis_worker.cli import logs
    from redis_worker.cli.supervising import supervise
    from redis_worker.supervisor.supervisor import Supervisor

    logs.configure("debug" if verbose else log_level, log_format, everything=True)
    with ExitStack() as stack:
        url = None
        if embedded:
            from redis_worker.embedded import EmbeddedServer

            url = stack.enter_context(EmbeddedServer()).url
            logs.announce(f"An embedded server runs at {url}")
        supervisor = Supervisor.from_file(file, only=only, without=without, url=url, standalone=True)
        return supervise(supervisor, Path(file) if watch else None)
