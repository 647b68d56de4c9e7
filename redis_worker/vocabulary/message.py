"""A message of a topic: one JSON object with `id`, `topic`, `data` and `published_at` (docs/topics.md)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from redis_worker.vocabulary.errors import ConfigurationError, Unreadable
from redis_worker.vocabulary.payload import dumps, read_object

_TOPIC = re.compile(r"[^\s{}*?\[\]]+")
LIST_PREFIX = "mq:"
"""The prefix of a topic's list."""


class Message(NamedTuple):
    """The argument of a handler."""

    id: str
    """The text form of the id."""
    topic: str
    data: Any
    """Any JSON value."""
    published_at: Any
    """The publisher's time of publication, in seconds since the epoch; unchecked, None if it is missing."""
    attempt: int = 1
    """1 for the first delivery, plus 1 for each redelivery."""


def read_message(raw: bytes, topic: str, attempt: int, plain: bool = False) -> Message:
    """Return the message in `raw`, from the list of `topic`; its member `topic` is ignored. Raises Unreadable.

    `plain` if it is known to have no long number.
    """
    id, content = read_object(raw, plain)
    if "data" not in content:
        raise Unreadable("the data is missing", id)
    return Message(id, topic, content["data"], content.get("published_at"), attempt)


def write_message(topic: str, data: Any, id: str | int, members: Mapping[str, Any] = MappingProxyType({})) -> bytes:
    """Return the message as its list holds it, with further `members`. Raises ValueError if JSON cannot hold `data`."""
    return dumps({"id": id, "topic": topic, "data": data, "published_at": time.time(), **members})


def check_topic(topic: str) -> str:
    """Return `topic`. Raises ConfigurationError if it is not a valid name."""
    check_prefix(topic)
    if not _TOPIC.fullmatch(topic):
        raise ConfigurationError(f"{topic!r} is not a valid topic: a topic has no spaces, braces, brackets, * or ?")
    return topic


def is_topic(name: str) -> bool:
    """Return True if `name` is a valid topic."""
    return _TOPIC.fullmatch(name) is not None and not name.startswith(LIST_PREFIX)


def check_prefix(topic: str) -> None:
    """Raise ConfigurationError if `topic`, or a pattern, names a list: the prefix mq: would be doubled."""
    if topic.startswith(LIST_PREFIX):
        name = topic.removeprefix(LIST_PREFIX)
        raise ConfigurationError(f"{topic!r} is the list of the topic {name!r}: name the topic, without {LIST_PREFIX}")
