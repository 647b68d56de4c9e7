"""`redis-worker kafka`: a worker on Kafka topics, as a member of a consumer group."""

from __future__ import annotations

from typing import Any

import click

from redis_worker.cli.options import (
    ENVIRONMENT,
    Repeated,
    http,
    kafka_options,
    log_options,
    option,
    redis_url,
    url_option,
)

EPILOG = f"""
\b
Examples:
  redis-worker kafka --brokers localhost:9092 --topic orders --group shop --handler shop.handlers:handle
  redis-worker kafka --topic cases --group covid --handler covid:to_row --table cases --key date --key city -w 4

--brokers is also $KAFKA_BROKERS, --group $CONSUMER_GROUP, --dsn $POSTGRES_DSN or $DATABASE_URL, and --batch-size
$BATCH_SIZE. Redis is needed for --dead-list only. Signals are those of `redis-worker run`.

{ENVIRONMENT}
"""


def _own(name: str, *others: str) -> list[str]:
    return [f"REDIS_WORKER_{name}", *others]


@click.command(epilog=EPILOG)
@option("--brokers", required=True, envvar=_own("BROKERS", "KAFKA_BROKERS"), metavar="HOST:PORT,…")
@option(
    "--topic",
    "topics",
    required=True,
    multiple=True,
    type=Repeated(),
    metavar="TOPIC",
    help="A topic, or a regular expression that begins with ^; may be repeated.",
)
@option("--group", required=True, envvar=_own("GROUP", "CONSUMER_GROUP"), help="The consumer group.", metavar="GROUP")
@option("--handler", required=True, metavar="NAME", help="The function for each message: module:function.")
@option("--decode", metavar="NAME", help="A function of a value's bytes, or a type for msgspec; JSON without it.")
@option("--sink", metavar="NAME", help="A Sink, or a function that returns one: module:name.")
@option("--table", metavar="TABLE", help="Write the rows that the handler returns to this table of PostgreSQL.")
@option("--key", multiple=True, type=Repeated(), metavar="COLUMN", help="Its unique key; may be repeated.")
@option("--dsn", envvar=_own("DSN", "POSTGRES_DSN", "DATABASE_URL"), metavar="URL", help="postgresql://…")
@option(
    "--batch-size",
    type=click.IntRange(1),
    envvar=_own("BATCH_SIZE", "BATCH_SIZE"),
    metavar="N",
    help="Rows of one write, 500 if not given.",
)
@option("--exactly-once", is_flag=True, help="Commit the offsets with the rows, in the database.")
@option(
    "-X",
    "--property",
    "properties",
    multiple=True,
    type=Repeated(),
    metavar="NAME=VALUE",
    help="A property of librdkafka; may be repeated.",
)
@kafka_options
@url_option
@option("-w", "--processes", type=click.IntRange(1), metavar="N", help="Run in so many processes of its own.")
@option("--http", type=http, metavar="HOST:PORT", help="Answer /healthz, /ready and /metrics there.")
@log_options
def kafka(
    url: str | None,
    properties: tuple[str, ...],
    processes: int | None,
    http: str | None,
    verbose: bool,
    log_level: str,
    log_format: str,
    **settings: Any,
) -> int:
    """Handle the messages of Kafka topics, and write the rows that the handler returns, if any."""
    from redis_worker.cli import logs
    from redis_worker.cli.consuming import consume

    logs.configure("debug" if verbose else log_level, log_format, alone=settings["group"])
    settings["url"] = redis_url(url) if settings["dead_list"] else None
    settings["properties"] = dict(map(_property, properties))
    return consume(settings, processes, http)


def _property(text: str) -> tuple[str, str]:
    """Return the name and the value of a property. Raises click.UsageError; the text may be a secret."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise click.UsageError("-X / --property takes NAME=VALUE, as in -X security.protocol=SASL_SSL")
    return name.strip(), value
