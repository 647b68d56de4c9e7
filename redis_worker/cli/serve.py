"""`redis-worker serve`: runs a file of workers, or a worker declared in Python, in one process."""

from __future__ import annotations

from contextlib import ExitStack

import click

from redis_worker.cli.options import ENVIRONMENT, log_options, option
from redis_worker.cli.plans import file_url_option, no_file_options, plan_options

EPILOG = f"""
\b
Examples:
  redis-worker serve workers.toml
  redis-worker serve workers.toml --only fibonacci --only cron
  redis-worker serve workers.toml --watch --embedded
  redis-worker serve shop.workers:worker

FILE is a TOML file, or module:name of a WorkerPool, TaskQueue, TopicWorker, KafkaWorker, Supervisor
or Handlers.

SIGHUP reloads the file and restarts the parts that changed; the others keep running. The first SIGTERM or Ctrl-C
stops the parts in reverse order, a second one cancels the rest, a third one exits. SIGUSR1 logs the
parts and running tasks.

{ENVIRONMENT}
Exceptions: --watch is REDIS_WORKER_SERVE_WATCH, and --url is REDIS_WORKER_SERVE_URL, which overrides the file.
"""


@click.command(epilog=EPILOG)
@plan_options
@option(
    "--watch",
    is_flag=True,
    envvar="REDIS_WORKER_SERVE_WATCH",  # REDIS_WORKER_WATCH is a folder, for run
    help="Reload the file when it changes.",
)
@file_url_option
@option("--embedded", is_flag=True, help="Start a temporary Redis server, in place of [redis] url.")
@log_options
def serve(
    file: str,
    only: tuple[str, ...],
    without: tuple[str, ...],
    watch: bool,
    url: str | None,
    embedded: bool,
    verbose: bool,
    log_level: str,
    log_format: str,
) -> int:
    """Run the pools, topics, daemons and cron jobs of a file, or a worker declared in Python."""
    from redis_worker.cli import logs
    from redis_worker.cli.changes import Watched
    from redis_worker.cli.declared import find_declared, is_declared, serve_declared
    from redis_worker.cli.supervising import supervise
    from redis_worker.supervisor.supervisor import Supervisor

    if embedded and url is not None:
        raise click.UsageError("--embedded starts a temporary server: use it without --url")
    declared = is_declared(file)
    if declared:
        no_file_options(file, only, without, watch)
    logs.configure("debug" if verbose else log_level, log_format, everything=True)
    with ExitStack() as stack:
        if embedded:
            from redis_worker.embedded import EmbeddedServer

            url = stack.enter_context(EmbeddedServer()).url
            logs.announce(f"An embedded server listens at {url}")
        if declared:
            return serve_declared(find_declared(file, url))
        supervisor = Supervisor.from_file(file, only=only, without=without, url=url, standalone=True)
        return supervise(supervisor, Watched(lambda: (file, ".env")) if watch else None)
