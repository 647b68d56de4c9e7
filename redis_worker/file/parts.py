"""Parts of a plan, of what a file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from redis_worker.cron.settings import JobSettings, Push
from redis_worker.file.entries import Entry, Group
from redis_worker.file.plan import (
    DaemonPart,
    JobPart,
    Part,
    PoolPart,
    Restart,
    Supervision,
    TopicSettings,
    TopicsPart,
)
from redis_worker.file.schema import POOL_OPTIONS, RESTARTING, TOPIC_WORKER_OPTIONS

_SUPERVISION = tuple(field.name for field in fields(Supervision))
_JOB = tuple(field.name for field in fields(JobSettings) if field.name not in ("name", "app", "push"))
# They have fields of their own in PoolPart, or in Supervision.
_POOL_OPTIONS = tuple(key for key in POOL_OPTIONS if key not in ("concurrency", "shutdown_timeout"))
_TOPIC_OPTIONS = (
    *("concurrency", "execution", "timeout", "retries", "retry_backoff", "retry_backoff_max"),
    *("idempotent", "remember"),
)


@dataclass(frozen=True, slots=True)
class Common:
    """What the parts of a file have in common."""

    app: str
    worker: Mapping[str, Any]
    """What [worker] says."""
    url: str | None
    """Where Redis is for those that do not say; not None if there is such a one."""
    topics: Group
    cron: Group


def parts_of(entries: list[Entry], common: Common) -> tuple[Part, ...]:
    """The parts that run, in the order of the file; all that the entries say must be right."""
    topics = [entry for entry in entries if entry.kind == "topics"]
    parts: list[Part] = []
    for entry in entries:
        if entry.kind == "pools":
            parts.append(_pool(entry, common))
        elif entry.kind == "daemons":
            said = entry.said
            supervision = _supervision(said, common)
            parts.append(DaemonPart(entry.name, said["run"], said.get("arguments", {}), supervision))
        elif entry.kind == "cron":
            parts.append(_job(entry, common))
        elif entry is topics[0]:
            parts.append(_topics(topics, common))
    return tuple(parts)


def _pool(entry: Entry, common: Common) -> PoolPart:
    said = entry.said
    return PoolPart(
        entry.name,
        _url(said, common),
        said["input"],
        said["output"],
        said["processor"],
        options=_options(said, _POOL_OPTIONS, common),
        supervision=_supervision(said, common, _restart_of_pool(said, common)),
        **_picked(said, ("parser", "concurrency")),
    )


def _restart_of_pool(said: Mapping[str, Any], common: Common) -> Restart:
    """A pool that ends when its queue is empty is not to begin at once again, unless it says so itself."""
    usual: Restart = common.worker.get("restart", "always")
    if said.get("burst") and usual == "always":
        return "on-failure"
    return usual


def _topics(entries: list[Entry], common: Common) -> TopicsPart:
    said = common.topics.said
    topics = tuple(_topic(entry) for entry in entries)
    options = _options(said, TOPIC_WORKER_OPTIONS, common)
    return TopicsPart("topics", _url(said, common), topics, options, _supervision(said, common))


def _topic(entry: Entry) -> TopicSettings:
    said = entry.said
    options = _picked(said, _TOPIC_OPTIONS) | said.get("batch", {})
    return TopicSettings(entry.name, said["handler"], options, "batch" in said)


def _job(entry: Entry, common: Common) -> JobPart:
    said, of_cron = entry.said, common.cron.said
    push = Push(**said["push"]) if "push" in said else None
    settings = JobSettings(name=entry.name, app=common.app, push=push, **_picked(said, _JOB))
    supervision = _supervision(_picked(of_cron, ("shutdown_timeout",)), common)
    return JobPart(entry.name, _url(_picked(of_cron, ("url",)) | said, common), settings, supervision)


def _url(said: Mapping[str, Any], common: Common) -> str:
    url = said.get("url", common.url)
    assert url is not None, "a URL is looked for as soon as one part needs it"
    return str(url)


def _options(said: Mapping[str, Any], keys: tuple[str, ...], common: Common) -> dict[str, Any]:
    """Those that are said; the time to wait for Redis may be said for all."""
    return _picked(common.worker, ("connect_timeout",)) | _picked(said, keys)


def _supervision(said: Mapping[str, Any], common: Common, restart: Restart | None = None) -> Supervision:
    usual = _picked(common.worker, tuple(RESTARTING))
    if restart is not None:
        usual["restart"] = restart
    return Supervision(**usual | _picked(said, _SUPERVISION))


def _picked(said: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: said[key] for key in keys if key in said}
