"""`redis-worker run`: a worker on one queue."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from redis_worker.cli.options import (
    ENVIRONMENT,
    given_url,
    http,
    http_origin_option,
    http_token_option,
    log_options,
    option,
    pool_options,
    redis_url,
    url_option,
)

EPILOG = f"""
\b
Examples:
  redis-worker run --input fib:input --output fib:output --processor fibonacci
  redis-worker run shop.tasks:queue -c 32 -w 4
  redis-worker run --input jobs --output results --processor myjobs:resize -c 8 -w 2

The first SIGTERM or Ctrl-C stops gracefully: the worker claims no more, returns unstarted tasks to the queue, and
finishes running ones. A second one cancels those and returns them, a third one exits. SIGUSR1 logs the id, age and
stack of each running task.

{ENVIRONMENT}
"""


# The options that say what a pool does; a queue of functions declares it.
_OF_LIST = ("input_key", "output_key", "processor")


@click.command(epilog=EPILOG)
@click.argument("queue", required=False, envvar="REDIS_WORKER_QUEUE")
@option("--input", "input_key", metavar="KEY", help="The list that tasks are taken from.")
@option("--output", "output_key", metavar="KEY", help="The hash that results are written to.")
@option("--processor", metavar="NAME", help="The function for each task: a name, or module:function.")
@option("--parser", default="list", show_default=True, metavar="NAME", help="The function that makes its arguments.")
@pool_options
@url_option
@option("-w", "--processes", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@option(
    "--http",
    type=http,
    metavar="HOST:PORT",
    help="Answer /healthz, /ready and /metrics there, for all worker processes together; push events at /ws.",
)
@http_token_option
@http_origin_option
@option(
    "--download-dir",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="The directory of the processor download; by default REDIS_WORKER_DOWNLOAD_DIR, or else ./downloads.",
)
@option("--embedded", is_flag=True, help="Start a temporary Redis server.")
@option(
    "--watch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Restart when a Python file in DIR changes.",
)
@log_options
def run(
    queue: str | None,
    url: str | None,
    processes: int,
    embedded: bool,
    watch: Path | None,
    download_dir: str | None,
    verbose: bool,
    log_level: str,
    log_format: str,
    **settings: Any,
) -> int:
    """Process the tasks of a list, and write their results to a hash; or those of QUEUE, module:name of a TaskQueue."""
    from redis_worker.cli import logs

    if queue is None:
        _require(*_OF_LIST)
    else:
        for name in (*_OF_LIST, "parser"):
            del settings[name]
        _refuse(*_OF_LIST, "parser", "embedded")
        settings["queue"], url = queue, given_url(url)

    if download_dir:
        os.environ["REDIS_WORKER_DOWNLOAD_DIR"] = download_dir
    several = processes > 1 or watch is not None
    level = "debug" if verbose else log_level
    logs.configure(level, log_format, alone=(queue or settings["input_key"]) if several else None)
    with ExitStack() as stack:
        address = url
        if queue is None:
            address = _embedded(stack, settings) if _embeds(embedded) else redis_url(url)
        if several:
            from redis_worker.cli.workers import work_in_processes

            return work_in_processes(address, settings, processes, watch)
        from redis_worker.cli.serving import work

        return work(address, settings)


def _require(*names: str) -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.params[parameter.name] is None:
            raise click.MissingParameter(ctx=context, param=parameter)


def _refuse(*names: str) -> None:
    """Refuse options beside a queue; those in the environment may be for another worker."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{parameter.opts[0]} is not for a queue of functions ({context.params['queue']!r}), which declares it"
            )


def _embeds(embedded: bool) -> bool:
    """Return True to start a server; --url takes precedence over an --embedded in the environment."""
    source = click.get_current_context().get_parameter_source
    if not embedded or source("url") is not ParameterSource.COMMANDLINE:
        return embedded
    if source("embedded") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--embedded starts a temporary server: use it without --url")
    return False


def _embedded(stack: ExitStack, settings: dict[str, Any]) -> str:
    from shlex import quote

    from redis_worker.cli import logs
    from redis_worker.embedded import EmbeddedServer

    server = stack.enter_context(EmbeddedServer())
    keys = f"--input {quote(settings['input_key'])} --output {quote(settings['output_key'])}"
    logs.announce(
        f"An embedded server runs at {server.url}\nTo push a task from another terminal:\n"
        f"  redis-worker push --url {server.url} {keys} --wait '[30]'"
    )
    return server.url
