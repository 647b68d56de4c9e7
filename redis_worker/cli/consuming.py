"""The work of `redis-worker kafka`: a supervisor over a plan with one Kafka part."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from redis_worker.cli.supervising import supervise
from redis_worker.file.kafka_parts import kafka_worker_of
from redis_worker.file.plan import HttpSettings, KafkaPart, Plan, SinkSettings, Supervision
from redis_worker.http.address import http_address
from redis_worker.service.kafka_options import KafkaOptions
from redis_worker.supervisor.supervisor import Supervisor
from redis_worker.vocabulary.errors import ConfigurationError, PartFailed, Refused


def consume(settings: dict[str, Any], processes: int | None, http: str | None) -> int:
    """Run a Kafka worker until stopped. Return the exit code. Raises RedisWorkerError."""
    options = {field.name: settings[field.name] for field in fields(KafkaOptions)}
    shutdown_timeout = options.pop("shutdown_timeout")
    part = KafkaPart(
        name=settings["group"],
        topics=list(settings["topics"]),
        sink=_sink(settings),
        options=options,
        supervision=Supervision(critical=True, shutdown_timeout=shutdown_timeout, processes=processes),
        **{name: settings[name] for name in ("brokers", "group", "handler", "decode", "url", "properties")},
    )
    kafka_worker_of(part)  # checks the settings
    address = http_address(http) if http else None
    plan = Plan(
        path="redis-worker kafka",
        name=part.name,
        url=part.url,
        parts=(part,),
        http=None if address is None else HttpSettings(address.host, address.port),
        connect_timeout=options["connect_timeout"],
        shutdown_timeout=shutdown_timeout,
    )
    try:
        return supervise(Supervisor(plan, standalone=True), None, hangup=False)
    except PartFailed as error:
        if isinstance(error.__cause__, Refused):
            raise error.__cause__ from None  # the exit code is that of a refusal
        raise


def _sink(settings: dict[str, Any]) -> SinkSettings | str | None:
    """Return the sink, if there is one. Raises ConfigurationError if its options do not fit together."""
    table, sink = settings["table"], settings["sink"]
    if table is None:
        if settings["key"] or settings["exactly_once"]:
            raise ConfigurationError("--key and --exactly-once are for --table")
        return None if sink is None else str(sink)
    if sink is not None:
        raise ConfigurationError("--sink and --table exclude each other")
    if not settings["key"] or not settings["dsn"]:
        raise ConfigurationError("--table needs --key, and --dsn or $POSTGRES_DSN or $DATABASE_URL")
    options: dict[str, Any] = {"stores_offsets": settings["exactly_once"]}
    if settings["batch_size"] is not None:
        options["batch_size"] = settings["batch_size"]
    return SinkSettings(settings["dsn"], table, list(settings["key"]), options)
