"""`redis-worker push`: put tasks on a queue."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from redis_worker.cli.options import ENVIRONMENT, delay_options, file_name, option, redis_url, url_option

if TYPE_CHECKING:
    from datetime import datetime

EPILOG = f"""
\b
Examples:
  redis-worker push --input fib:input '[30]' '[31]'
  redis-worker push --input fib:input --output fib:output --wait '{{"id":"t1","task":[30]}}'
  redis-worker push --input fib:input --file tasks.jsonl
  redis-worker push --input fib:input --delay 10m '[30]'

An object that has a member "task" is taken for a whole payload; anything else is the task itself. A task
that begins with a minus sign goes after a --, as in: redis-worker push --input numbers -- -5

Messages of a topic are made by: redis-worker publish

{ENVIRONMENT}
"""


@click.command(epilog=EPILOG)
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@option("--input", "input_key", required=True, metavar="KEY", help="The list to push to.")
@option("--output", "output_key", metavar="KEY", help="The hash to read results from, with --wait.")
@option("--id", "id", metavar="ID", help="The id of a single task; one is made up otherwise.")
@option(
    "--file", "path", type=file_name, metavar="PATH", help="Push a file of tasks, one JSON a line; - is standard input."
)
@option("--left", is_flag=True, help="Push to the head of the list: the last one pushed is taken first.")
@delay_options
@option("--wait", is_flag=True, help="Print the results as they arrive; exit 1 if a task failed.")
@url_option
def push(
    tasks: tuple[str, ...],
    input_key: str,
    output_key: str | None,
    id: str | None,
    path: str | None,
    left: bool,
    delay: float | None,
    at: datetime | None,
    wait: bool,
    url: str | None,
) -> int:
    """Put tasks on a queue. Prints their ids or, with --wait, their results."""
    if bool(tasks) == bool(path):
        raise click.UsageError("give tasks as arguments, or a file of them with --file PATH, one of the two")
    if wait and not output_key:
        raise click.UsageError("--wait reads the results from the hash named by --output KEY")
    if id is not None and len(tasks) != 1:
        raise click.UsageError("--id goes with exactly one task")
    if sum((left, delay is not None, at is not None)) > 1:
        raise click.UsageError("--left, --delay and --at do not go together")
    from redis_worker.cli.payload_options import send
    from redis_worker.cli.payloads import payload
    from redis_worker.cli.pushing import Target

    target = Target(redis_url(url), input_key, output_key, left, wait, delay, at)
    return send(tasks, path, partial(payload, id=id), target)
