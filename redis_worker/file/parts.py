"""Entries of a file made into the parts of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from redis_worker.cron.settings import JobSettings, Push
from redis_worker.file.document import Table
from redis_worker.file.entries import Entry
from redis_worker.file.plan import (
    DaemonPart,
    JobPart,
    KafkaPart,
    Part,
    PoolPart,
    Restart,
    SinkSettings,
    Supervision,
    TasksPart,
    TopicSettings,
    TopicsPart,
)
from redis_worker.file.schema import KAFKA_OPTIONS, POOL_OPTIONS, RESTARTING, TASK_OPTIONS, TOPIC, TOPIC_WORKER_OPTIONS

_SUPERVISION = tuple(field.name for field in fields(Supervision))
_JOB = tuple(field.name for field in fields(JobSettings) if field.name not in ("name", "app", "push"))
# The other options are fields of PoolPart or Supervision.
_POOL_OPTIONS = tuple(key for key in POOL_OPTIONS if key not in ("concurrency", "shutdown_timeout"))
_TASK_OPTIONS = tuple(key for key in TASK_OPTIONS if key not in ("concurrency", "shutdown_timeout"))
_KAFKA_OPTIONS = tuple(KAFKA_OPTIONS)
_TOPIC_OPTIONS = tuple(key for key in TOPIC.kinds if key not in ("enable", "handler", "batch"))


@dataclass(frozen=True, slots=True)
class Common:
    """The settings that the parts of a file share."""

    app: str
    worker: Mapping[str, Any]
    """The valid values of [worker]."""
    url: str | None
    """The Redis URL for parts without their own; None only if every part has one or needs none."""
    given_url: str | None
    """The URL of the command line."""
    topics: Table
    kafka: Table
    cron: Table


def parts_of(entries: list[Entry], common: Common) -> tuple[Part, ...]:
    """Return the parts that run, in the order of the file; the entries must be valid."""
    topics = [entry for entry in entries if entry.kind == "topics"]
    parts: list[Part] = []
    for entry in entries:
        if entry.kind == "pools":
            parts.append(_pool(entry, common))
        elif entry.kind == "tasks":
            parts.append(_tasks(entry, common))
        elif entry.kind == "kafka":
            parts.append(_kafka(entry, common))
        elif entry.kind == "daemons":
            settings = entry.settings
            supervision = _supervision(settings, common)
            parts.append(DaemonPart(entry.name, settings["run"], settings.get("arguments", {}), supervision))
        elif entry.kind == "cron":
            parts.append(_job(entry, common))
        elif entry is topics[0]:
            parts.append(_topics(topics, common))
    return tuple(parts)


def _pool(entry: Entry, common: Common) -> PoolPart:
    settings = entry.settings
    return PoolPart(
        entry.name,
        _url(settings, common),
        settings["input"],
        settings["output"],
        settings["processor"],
        options=_options(settings, _POOL_OPTIONS, common),
        supervision=_supervision(settings, common, _restart_of_pool(settings, common)),
        **_pick(settings, ("parser", "lifespan", "concurrency")),
    )


def _tasks(entry: Entry, common: Common) -> TasksPart:
    settings = entry.settings
    return TasksPart(
        entry.name,
        settings["queue"],
        settings.get("url", common.given_url),
        options=_options(settings, _TASK_OPTIONS, common),
        supervision=_supervision(settings, common, _restart_of_pool(settings, common)),
        **_pick(settings, ("concurrency",)),
    )


def _restart_of_pool(settings: Mapping[str, Any], common: Common) -> Restart:
    """Return the default restart policy: a burst pool must not restart when its queue is empty."""
    usual: Restart = common.worker.get("restart", "always")
    if settings.get("burst") and usual == "always":
        return "on-failure"
    return usual


def _topics(entries: list[Entry], common: Common) -> TopicsPart:
    settings = common.topics.settings
    topics = tuple(_topic(entry) for entry in entries)
    options = _options(settings, TOPIC_WORKER_OPTIONS, common)
    supervision = _supervision(settings, common)
    return TopicsPart("topics", _url(settings, common), topics, options, supervision, settings.get("lifespan"))


def _topic(entry: Entry) -> TopicSettings:
    settings = entry.settings
    options = _pick(settings, _TOPIC_OPTIONS) | settings.get("batch", {})
    return TopicSettings(entry.name, settings["handler"], options, "batch" in settings)


def _kafka(entry: Entry, common: Common) -> KafkaPart:
    shared = common.kafka.settings
    settings = shared | entry.settings
    options = _options(settings, _KAFKA_OPTIONS, common)
    if "batch" in settings:
        options |= {"batch": True, **settings["batch"]}
    return KafkaPart(
        entry.name,
        settings["brokers"],
        settings["topics"],
        settings["group"],
        settings["handler"],
        sink=_sink(settings["sink"], settings.get("offsets")) if "sink" in settings else None,
        url=_url(settings, common) if "dead_list" in settings else None,
        properties=shared.get("properties", {}) | entry.settings.get("properties", {}),
        options=options,
        supervision=_supervision(settings, common),
        **_pick(settings, ("decode",)),
    )


def _sink(sink: Table | str, offsets: str | None) -> SinkSettings | str:
    if isinstance(sink, str):
        return sink
    settings = dict(sink.settings)
    settings.pop("type", None)
    settings["stores_offsets"] = offsets == "postgres"
    return SinkSettings(settings.pop("dsn"), settings.pop("table"), settings.pop("key"), settings)


def _job(entry: Entry, common: Common) -> JobPart:
    settings, cron = entry.settings, common.cron.settings
    push = Push(**settings["push"]) if "push" in settings else None
    job_settings = JobSettings(name=entry.name, app=common.app, push=push, **_pick(settings, _JOB))
    supervision = _supervision(_pick(cron, ("shutdown_timeout",)), common)
    return JobPart(entry.name, _url(_pick(cron, ("url",)) | settings, common), job_settings, supervision)


def _url(settings: Mapping[str, Any], common: Common) -> str:
    url = settings.get("url", common.url)
    assert url is not None, "the reader finds a URL if any part needs it"
    return str(url)


def _options(settings: Mapping[str, Any], keys: tuple[str, ...], common: Common) -> dict[str, Any]:
    """Return the options that are set; [worker] may set `connect_timeout` for all parts."""
    return _pick(common.worker, ("connect_timeout",)) | _pick(settings, keys)


def _supervision(settings: Mapping[str, Any], common: Common, restart: Restart | None = None) -> Supervision:
    usual = _pick(common.worker, tuple(RESTARTING))
    if restart is not None:
        usual["restart"] = restart
    return Supervision(**usual | _pick(settings, _SUPERVISION))


def _pick(settings: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: settings[key] for key in keys if key in settings}
