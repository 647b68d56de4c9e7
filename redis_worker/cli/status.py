"""`redis-worker status`: queues and their workers."""

from __future__ import annotations

import click

from redis_worker.cli.on_queue import hint
from redis_worker.cli.options import ENVIRONMENT, Repeated, option, redis_url, url_option

EPILOG = f"""
\b
Examples:
  redis-worker status
  redis-worker status --input fib:input --watch
  redis-worker status --json

{ENVIRONMENT}
Exception: --watch is REDIS_WORKER_STATUS_WATCH.
"""


@click.command(epilog=EPILOG)
@option(
    "--input",
    "input_keys",
    multiple=True,
    type=Repeated(),
    metavar="KEY",
    help="Only this queue, mq:TOPIC for a topic; may be repeated. Default: all known queues.",
)
@option(
    "--watch",
    is_flag=True,
    envvar="REDIS_WORKER_STATUS_WATCH",  # REDIS_WORKER_WATCH is a folder, for run
    help="Refresh every second, until Ctrl-C.",
)
@option("--json", "as_json", is_flag=True, help="Print a JSON object; with --watch, one a line.")
@url_option
def status(input_keys: tuple[str, ...], watch: bool, as_json: bool, url: str | None) -> int:
    """Show queues and their workers: waiting and running tasks, running times, live and stale workers."""
    address = redis_url(url)
    try:
        import asyncio

        asyncio.run(_show(address, input_keys, watch, as_json))
    except KeyboardInterrupt:
        if not watch:
            raise
    return 0


async def _show(url: str, input_keys: tuple[str, ...], watch: bool, as_json: bool) -> None:
    import asyncio

    from redis_worker.broker.operator.status import StatusReader
    from redis_worker.cli.printing import explained
    from redis_worker.cli.screen import open_screen
    from redis_worker.vocabulary.errors import Disconnected

    async with StatusReader(url, input_keys) as reader:
        with explained(url, "cannot read the status"):
            status = await reader.read()
        with open_screen(as_json, watch) as screen:
            screen.show(status)
            if not watch:
                await hint(reader, input_keys)
            while watch:
                await asyncio.sleep(1)
                try:
                    screen.show(await reader.read())
                except Disconnected as error:
                    screen.fail(f"Redis does not answer: {error}")
