"""`redis-worker publish`: publish messages to a topic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from redis_worker.cli.options import ENVIRONMENT, delay_options, file_name, option, redis_url, text, url_option

if TYPE_CHECKING:
    from datetime import datetime

EPILOG = f"""
\b
Examples:
  redis-worker publish order.created '{{"order":7}}' '{{"order":8}}'
  redis-worker publish order.reminder --delay 24h --id 7 '{{"order":7}}'
  redis-worker publish order.created --file orders.jsonl

Each JSON is the data of one message, whatever it looks like; what begins with a minus sign goes after a --.
The topic order.created is the list mq:order.created. What `push` puts there are tasks, which have no data:
they become dead letters. These are seen with: redis-worker dead list --input mq:order.created

{ENVIRONMENT}
"""


@click.command(epilog=EPILOG)
@click.argument("topic", type=text)
@click.argument("data", nargs=-1, metavar="[JSON]...")
@delay_options
@option("--id", "id", metavar="ID", help="The id of a single message; one is made up otherwise.")
@option(
    "--file",
    "path",
    type=file_name,
    metavar="PATH",
    help="Publish a file of data, one JSON a line; - is standard input.",
)
@url_option
def publish(
    topic: str,
    data: tuple[str, ...],
    delay: float | None,
    at: datetime | None,
    id: str | None,
    path: str | None,
    url: str | None,
) -> int:
    """Publish messages to a topic. Prints their ids."""
    if bool(data) == bool(path):
        raise click.UsageError("give data as arguments, or a file of it with --file PATH, one of the two")
    if id is not None and len(data) != 1:
        raise click.UsageError("--id goes with exactly one message")
    if delay is not None and at is not None:
        raise click.UsageError("--delay and --at do not go together")
    from redis_worker.broker.keys import topic_list
    from redis_worker.cli.payload_options import send
    from redis_worker.cli.payloads import message
    from redis_worker.cli.pushing import Target
    from redis_worker.vocabulary.message import check_topic

    key = topic_list(check_topic(topic))
    target = Target(redis_url(url), key, None, left=False, wait=False, delay=delay, at=at, topic=topic)
    return send(data, path, partial(message, topic, id=id), target)
