"""The objects that a Kafka part names, and the worker made of them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from redis_worker.file.plan import KafkaPart, SinkSettings
from redis_worker.kafka.settings import KafkaSettings
from redis_worker.ports import Sink
from redis_worker.registry import find_function, find_object
from redis_worker.service.kafka_options import KafkaOptions, group_settings
from redis_worker.service.kafka_worker import KafkaWorker
from redis_worker.vocabulary.errors import ConfigurationError


def kafka_worker_of(part: KafkaPart, **more: Any) -> KafkaWorker:
    """Return the worker of `part`; `more` are further arguments. Raises ConfigurationError."""
    return KafkaWorker(
        part.brokers,
        part.topics,
        part.group,
        find_function("handler", part.handler),
        sink=None if part.sink is None else sink_of(part.sink),
        decode=None if part.decode is None else find_object("decoder", part.decode),
        properties=part.properties,
        redis=part.url,
        **part.options,
        **more,
    )


def settings_of(part: KafkaPart) -> KafkaSettings:
    """Return the settings of the group that `part` joins. Raises ConfigurationError."""
    return group_settings(part.brokers, part.topics, part.group, KafkaOptions(**part.options), part.properties)


def inspection() -> ModuleType:
    """Return the module that asks brokers. Raises ConfigurationError if the extra is not installed."""
    try:
        return import_module("redis_worker.kafka.inspection")
    except ImportError as error:
        raise ConfigurationError(
            f"Kafka needs the extra `kafka` ({error.name} is missing): pip install 'redis-worker[kafka]'"
        ) from None


def sink_of(settings: SinkSettings | str) -> Sink:
    """Return a new sink for a table, or the one at `module:name`. Raises ConfigurationError."""
    if isinstance(settings, SinkSettings):
        try:
            from redis_worker.postgres.upsert_sink import UpsertSink
        except ImportError as error:
            raise ConfigurationError(
                f"a sink for PostgreSQL needs the extra `postgres` ({error.name} is missing): "
                "pip install 'redis-worker[postgres]'"
            ) from None
        return UpsertSink(settings.dsn, settings.table, key=settings.key, **settings.options)
    found = find_object("sink", settings)
    sink = found() if callable(found) else found
    if not isinstance(sink, Sink):
        kind = type(sink).__name__
        raise ConfigurationError(
            f"the sink {settings!r} is a {kind}; it must be a Sink, or a function that returns one"
        )
    return sink
