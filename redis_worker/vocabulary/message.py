"""A message of a topic: one JSON object with `id`, `topic`, `data` and `published_at` (docs/topics.md)."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

from redis_worker.vocabulary.errors import ConfigurationError, Unreadable
from redis_worker.vocabulary.payload import dumps, read_object

_TOPIC = re.compile(r"[^\s{}*?\[\]]+")
LIST_PREFIX = "mq:"
"""The list of a topic is called so, followed by the topic."""


class Message(NamedTuple):
    """What a handler is called with."""

    id: str
    """The text form of the id."""
    topic: str
    data: Any
    """Any JSON value."""
    published_at: Any
    """When its publisher says it was published, in seconds since the epoch; unchecked, None when it says nothing."""
    attempt: int = 1
    """1 for the first delivery, one more for each one after."""


def read_message(raw: bytes, topic: str, attempt: int) -> Message:
    """The message in `raw`, which was found in the list of `topic`: that is its topic, whatever it says itself.

    Raises Unreadable.
    """
    id, content = read_object(raw)
    if "data" not in content:
        raise Unreadable("the data is missing", id)
    return Message(id, topic, content["data"], content.get("published_at"), attempt)


def write_message(topic: str, data: Any, id: str | int) -> bytes:
    """The message as it stands in its list. Raises ValueError where JSON cannot hold `data`."""
    return dumps({"id": id, "topic": topic, "data": data, "published_at": time.time()})


def check_topic(topic: str) -> str:
    """`topic`, if it can be the name of one. Raises ConfigurationError."""
    check_prefix(topic)
    if not _TOPIC.fullmatch(topic):
        raise ConfigurationError(f"{topic!r} is no name for a topic: it has no spaces, braces, brackets, * or ?")
    return topic


def check_prefix(topic: str) -> None:
    """Raise ConfigurationError where `topic`, or a pattern of topics, is the name of a list: mq: would stand twice."""
    if topic.startswith(LIST_PREFIX):
        name = topic.removeprefix(LIST_PREFIX)
        raise ConfigurationError(f"{topic!r} is the list of the topic {name!r}: name the topic, without {LIST_PREFIX}")
