"""The tables of Kafka parts: their inner tables, and the settings that the environment supplies."""

from __future__ import annotations

from collections.abc import Iterable

from redis_worker.file.document import Table
from redis_worker.file.schema import BATCH, KAFKA, SINK

SERVERS = {"brokers": "KAFKA_BROKERS", "group": "CONSUMER_GROUP"}
"""Keys that a part needs and may have from [kafka], or from the environment."""
_DSN = ("POSTGRES_DSN", "DATABASE_URL")

# The value used to check a part whose real one is invalid; nothing connects to it.
_SOMEWHERE = "localhost"


def read_inner(part: Table) -> None:
    """Read the tables inside a part's; record mistakes. A sink's table takes the place of its value."""
    settings = part.settings
    if "batch" in settings:
        settings["batch"] = part.table("batch").read(BATCH).settings
    if isinstance(settings.get("sink"), dict):
        settings["sink"] = part.table("sink").read(SINK)
    elif settings.get("offsets") == "postgres":
        part.blame("offsets", 'must be "kafka" without a table [….sink]: they are stored beside the rows')


def complete(group: Table, parts: Iterable[Table]) -> None:
    """Supply what `parts`, which run, and their `group` [kafka] lack from the environment; record what is missing."""
    for part in parts:
        for key, variable in SERVERS.items():
            if key in part or key in group.settings:
                continue
            if key not in group and not group.set_default(key, KAFKA.kinds[key], variable):
                part.blame(key, f"is missing: set it here, in [kafka], or as {variable} in the environment")
            group.settings.setdefault(key, _SOMEWHERE)
        if isinstance(sink := part.settings.get("sink"), Table):
            _complete_sink(sink)


def _complete_sink(sink: Table) -> None:
    sink.set_default("batch_size", SINK.kinds["batch_size"], "BATCH_SIZE")
    if "dsn" not in sink and not sink.set_default("dsn", SINK.kinds["dsn"], *_DSN):
        sink.blame("dsn", f"is missing: set it here, or as {' or '.join(_DSN)} in the environment")
