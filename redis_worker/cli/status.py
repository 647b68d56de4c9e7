"""`redis-worker status`: the queues, and the workers at work on them."""

from __future__ import annotations

from typing import Any

import click

from redis_worker.cli.options import ENVIRONMENT, option, redis_url, text, url_option

EPILOG = f"""
\b
Examples:
  redis-worker status
  redis-worker status --input fib:input --watch
  redis-worker status --json

{ENVIRONMENT}
Only --watch is REDIS_WORKER_STATUS_WATCH here.
"""


class _Key(click.types.StringParamType):
    # In the environment there is one key, as for the other commands: a key may have blanks in it.
    envvar_list_splitter = "\n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return text(str(super().convert(value, param, ctx)))


@click.command(epilog=EPILOG)
@option(
    "--input",
    "input_keys",
    multiple=True,
    type=_Key(),
    metavar="KEY",
    help="Only this queue, mq:TOPIC for a topic; may be repeated. Default: all that are known.",
)
@option(
    "--watch",
    is_flag=True,
    envvar="REDIS_WORKER_STATUS_WATCH",  # REDIS_WORKER_WATCH is a folder, for run
    help="Show it again every second, until Ctrl-C.",
)
@option("--json", "as_json", is_flag=True, help="As a JSON object; with --watch, one a line.")
@url_option
def status(input_keys: tuple[str, ...], watch: bool, as_json: bool, url: str | None) -> int:
    """Show queues and their workers: what waits, what runs and for how long, who is alive."""
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
    from redis_worker.cli.hints import hint
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
