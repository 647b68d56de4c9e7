"""`redis-worker run`: a worker on one queue."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, url_option

if TYPE_CHECKING:
    from redis_worker.pool import WorkerPool

EPILOG = f"""
\b
Examples:
  redis-worker run --input fib:input --output fib:output --processor fibonacci
  redis-worker run --input jobs --output results --processor myjobs:resize -c 8 -w 2

The first SIGTERM or Ctrl-C stops gracefully: nothing more is claimed, what is not started goes back to the
queue, running tasks finish. A second one cancels them and hands them back, a third one exits.

{ENVIRONMENT}
"""

_REPORT_EVERY = 10.0
_SECONDS = click.FloatRange(min=0)
_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)


@click.command(epilog=EPILOG)
@option("--input", "input_key", required=True, metavar="KEY", help="The list that tasks are taken from.")
@option("--output", "output_key", required=True, metavar="KEY", help="The hash that results are written to.")
@option("--processor", required=True, metavar="NAME", help="What does the work: a name, or module:function.")
@option("--parser", default="list", show_default=True, metavar="NAME", help="What makes the arguments of a task.")
@option("-c", "--concurrency", type=click.IntRange(1), default=4, show_default=True, help="Tasks at once.")
@url_option
@option(
    "--delivery",
    type=click.Choice(["at-least-once", "at-most-once"]),
    default="at-least-once",
    show_default=True,
    help="What to prefer when a worker dies: doing a task again, or losing it.",
)
@option(
    "--execution",
    type=click.Choice(["auto", "inline", "thread", "process"]),
    default="auto",
    show_default=True,
    help="Where the processor runs; auto is what it declares.",
)
@option("--timeout", type=_ABOVE_ZERO, metavar="S", help="Time limit of one task, in seconds.")
@option(
    "--max-deliveries",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    metavar="N",
    help="Give a task up after N workers have died holding it.",
)
@option(
    "--lease",
    type=click.FloatRange(min=2),
    default=6.0,
    show_default=True,
    metavar="S",
    help="A worker not heard of for so long is presumed dead.",
)
@option(
    "--connect-timeout",
    type=_SECONDS,
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long to wait for Redis at start; 0: for ever.",
)
@option(
    "--shutdown-timeout",
    type=_SECONDS,
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long running tasks may take after a stop.",
)
@option("--retries", type=click.IntRange(0), metavar="N", help="Try a task that failed again, N times.")
@option("--retry-backoff", type=_ABOVE_ZERO, metavar="S", help="The first delay before that; then it doubles.")
@option("--retry-backoff-max", type=_ABOVE_ZERO, metavar="S", help="The longest delay.")
@option("--burst", is_flag=True, help="End when the queue is empty and nothing is running.")
@option("--max-tasks", type=click.IntRange(1), metavar="N", help="End after N tasks.")
@option("-w", "--processes", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@option("--embedded", is_flag=True, help="Start a Redis server of its own, gone afterwards.")
@option(
    "--watch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Restart when a Python file in DIR changes.",
)
@click.option("-v", "--verbose", is_flag=True, help="A line for each task: the same as --log-level debug.")
@option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def run(
    url: str | None,
    processes: int,
    embedded: bool,
    watch: Path | None,
    verbose: bool,
    log_level: str,
    log_format: str,
    **settings: Any,
) -> int:
    """Work on the tasks of a list, and put their results in a hash."""
    from redis_worker.cli import logs
    from redis_worker.cli.fleet import fleet_url, run_fleet

    logs.configure("debug" if verbose else log_level, log_format)
    context = click.get_current_context()
    if embedded and context.get_parameter_source("url") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--embedded starts a server of its own, so it takes no --url")
    if in_fleet := fleet_url():
        return _work(in_fleet, settings)
    with ExitStack() as stack:
        address = _embedded(stack, settings) if embedded else redis_url(url)
        if processes > 1 or watch is not None:
            return run_fleet(processes, watch, address)
        return _work(address, settings)


def _embedded(stack: ExitStack, settings: dict[str, Any]) -> str:
    from redis_worker.embedded import EmbeddedServer

    server = stack.enter_context(EmbeddedServer())
    click.echo(
        f"An embedded server runs at {server.url}; to push a task from another terminal:\n"
        f"  redis-worker push --url {server.url} --input {settings['input_key']} "
        f"--output {settings['output_key']} --wait '[30]'",
        err=True,
    )
    return server.url


def _work(address: str, settings: dict[str, Any]) -> int:
    from redis_worker.pool import WorkerPool

    names = {name: settings.pop(name) for name in ("input_key", "output_key", "parser", "processor")}
    pool = WorkerPool(address, **names, **settings)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(pool, names))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(pool: WorkerPool, names: dict[str, str]) -> int:
    import logging

    from redis_worker.cli.fleet import stop_with_parent
    from redis_worker.cli.signals import stop_signals
    from redis_worker.vocabulary.errors import RedisWorkerError, Refused

    logger = logging.getLogger("redis_worker.run")
    cancelled = False

    def stop() -> None:
        logger.info("stopping: %d tasks are running; once more to cancel them", pool.running)
        pool.stop()

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True
        logger.warning("cancelling: what is unfinished goes back to the queue")
        pool.cancel()

    reporting = asyncio.create_task(_report(pool, names, logger))
    with stop_signals(stop, cancel):
        stop_with_parent(stop)
        try:
            await pool.run()
        except Refused as error:
            if not pool.started:
                raise
            raise RedisWorkerError(str(error)) from error
        finally:
            reporting.cancel()
            if pool.started:
                _summarise(pool, logger)
    return 1 if cancelled else 0


async def _report(pool: WorkerPool, names: dict[str, str], logger: Any) -> None:
    """Say what runs where, once it does; then, while there is work, how it goes."""
    await pool.wait_until_started()
    logger.info(
        "%s on %s: %s -> %s, %d at once, %s, %s",
        names["processor"],
        pool.address,
        names["input_key"],
        names["output_key"],
        pool.options.concurrency,
        {"inline": "inline on the event loop", "async": "coroutines"}.get(
            pool.declaration.execution, f"each in a {pool.declaration.execution}"
        ),
        pool.options.delivery,
    )
    counters = pool.counters
    before = 0
    while True:
        await asyncio.sleep(_REPORT_EVERY)
        processed = counters.processed
        if processed != before or pool.running:
            logger.info(
                "%d processed (%.0f/s), %d failed, %d running",
                processed,
                (processed - before) / _REPORT_EVERY,
                counters.failed,
                pool.running,
            )
        before = processed


def _summarise(pool: WorkerPool, logger: Any) -> None:
    counters = pool.counters
    extra = "".join(
        f", {count} {what}"
        for count, what in (
            (counters.redelivered, "delivered again"),
            (counters.released, "handed back"),
            (counters.refused, "not written (done elsewhere)"),
        )
        if count
    )
    logger.info("ended: %d processed, %d failed%s, %.1f/s", counters.processed, counters.failed, extra, counters.rate)
    sys.stderr.flush()
