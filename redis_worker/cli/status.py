"""`redis-worker status`: queues and their workers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import click

from redis_worker.cli.on_queue import hint
from redis_worker.cli.options import ENVIRONMENT, Repeated, given_url, option, redis_url, url_option
from redis_worker.cli.plans import file_option

if TYPE_CHECKING:
    from redis_worker.broker.operator.status import Status, StatusReader
    from redis_worker.file.plan import KafkaPart

# The time limit for the brokers of a Kafka part, in seconds.
_PATIENCE = 5.0

EPILOG = f"""
\b
Examples:
  redis-worker status
  redis-worker status --input fib:input --watch
  redis-worker status --json
  redis-worker status --file workers.toml

{ENVIRONMENT}
Exceptions: --watch is REDIS_WORKER_STATUS_WATCH, and --file is REDIS_WORKER_STATUS_FILE.
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
@file_option("status")
@url_option
def status(input_keys: tuple[str, ...], watch: bool, as_json: bool, file: str | None, url: str | None) -> int:
    """Show queues and their workers: waiting and running tasks, running times, live and stale workers.

    With --file, also the topics of the file's Kafka parts and the lags of their groups; Redis is left out if the file
    does not need it.
    """
    address, parts = (redis_url(url), []) if file is None else _of_file(file, given_url(url))
    try:
        import asyncio

        asyncio.run(_show(address, parts, input_keys, watch, as_json))
    except KeyboardInterrupt:
        if not watch:
            raise
    return 0


def _of_file(file: str, url: str | None) -> tuple[str | None, list[KafkaPart]]:
    """Return the Redis URL of a file, None if it needs none, and its Kafka parts. Raises FileMistakes."""
    from redis_worker.file.plan import KafkaPart
    from redis_worker.file.reading import read_plan

    plan = read_plan(file, url=url)
    return plan.url, [part for part in plan.parts if isinstance(part, KafkaPart)]


async def _show(
    url: str | None, parts: list[KafkaPart], input_keys: tuple[str, ...], watch: bool, as_json: bool
) -> None:
    import asyncio

    from redis_worker.cli.screen import open_screen
    from redis_worker.vocabulary.errors import Disconnected

    async with AsyncExitStack() as stack:
        reader = None if url is None else await stack.enter_async_context(_reader(url, input_keys))
        status = await _first(url, reader, parts)
        with open_screen(as_json, watch) as screen:
            screen.show(status)
            if not watch and reader is not None:
                await hint(reader, input_keys)
            while watch:
                await asyncio.sleep(1)
                try:
                    screen.show(await _read(reader, parts))
                except Disconnected as error:
                    screen.fail(f"Redis does not answer: {error}")


def _reader(url: str, input_keys: tuple[str, ...]) -> StatusReader:
    from redis_worker.broker.operator.status import StatusReader

    return StatusReader(url, input_keys)


async def _first(url: str | None, reader: StatusReader | None, parts: list[KafkaPart]) -> Status:
    """Return the status. Raises Disconnected, Refused, or Unreachable if there is nothing to show but problems."""
    from redis_worker.cli.printing import explained
    from redis_worker.vocabulary.errors import Unreachable

    if url is not None:
        with explained(url, "cannot read the status"):
            return await _read(reader, parts)
    status = await _read(reader, parts)
    problems = [row.problem for row in status.kafka if row.problem is not None]
    if problems and len(problems) == len(status.kafka):
        raise Unreachable(f"cannot read the status: {problems[0]}")
    return status


async def _read(reader: StatusReader | None, parts: list[KafkaPart]) -> Status:
    import asyncio
    import time
    from dataclasses import replace

    from redis_worker.broker.operator.status import Status

    status = Status(time.time(), [], []) if reader is None else await reader.read()
    if not parts:
        return status
    from redis_worker.file.kafka_servers import group_status

    groups = await asyncio.gather(*(group_status(part, _PATIENCE) for part in parts))
    return replace(status, kafka=[row for rows in groups for row in rows])
