"""Parts as JSON, and back: the form in which a supervisor sends a part to its process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from redis_worker.cron.settings import JobSettings, Push
from redis_worker.file.plan import (
    DaemonPart,
    JobPart,
    KafkaPart,
    Part,
    PoolPart,
    SinkSettings,
    Supervision,
    TasksPart,
    TopicSettings,
    TopicsPart,
)

_KINDS: dict[str, type[Part]] = {
    kind.__name__: kind for kind in (PoolPart, TasksPart, TopicsPart, KafkaPart, DaemonPart, JobPart)
}


def packed(part: Part) -> dict[str, Any]:
    """Return `part` in JSON types."""
    return {"kind": type(part).__name__, **asdict(part)}


def unpacked(values: dict[str, Any]) -> Part:
    """Return the part that `packed` converted."""
    values = dict(values)
    kind = _KINDS[values.pop("kind")]
    values["supervision"] = Supervision(**values["supervision"])
    if isinstance(values.get("sink"), dict):
        values["sink"] = SinkSettings(**values["sink"])
    if kind is TopicsPart:
        values["topics"] = tuple(TopicSettings(**topic) for topic in values["topics"])
    if "settings" in values:
        push = values["settings"].pop("push")
        values["settings"] = JobSettings(**values["settings"], push=None if push is None else Push(**push))
    return kind(**values)
