"""Routes: the handler of a topic, and the form of its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from redis_worker.engine.awaitables import Deferred, is_awaitable, resolved
from redis_worker.engine.batches import Failed, failures
from redis_worker.service.declared_options import Declared
from redis_worker.vocabulary.calls import check_takes_one
from redis_worker.vocabulary.checks import check_flag, check_seconds, check_whole
from redis_worker.vocabulary.errors import ConfigurationError, Reject
from redis_worker.vocabulary.message import Message
from redis_worker.vocabulary.processor import Declaration, declaration_of, said_by
from redis_worker.vocabulary.rate import Rate

# The default number of retries of a message, for which no client waits.
_RETRIES = 3
_DAY = 86_400.0
_PROCESSOR_OPTIONS = ("execution", "timeout", "retries", "retry_backoff", "retry_backoff_max")


@dataclass(frozen=True, slots=True)
class Batching:
    """The limits of a batch."""

    size: int
    """The most messages in a batch."""
    within: float
    """How long a batch waits after its first message, in seconds."""


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and its topics."""

    pattern: str
    """The name of a topic, or a pattern: * matches anything, ? one character."""
    call: Callable[[Any], Any]
    """Called with a message, or with a batch of messages."""
    declaration: Declaration
    concurrency: int
    """The number of messages (or batches) of one topic handled at once."""
    remember: float
    """How long to remember completed messages, in seconds; 0 if not idempotent."""
    batching: Batching | None = None
    rate: Rate | None = None
    """The starts of each topic, over all workers."""

    @property
    def is_pattern(self) -> bool:
        """True if it may match topics that are not known yet."""
        return any(character in self.pattern for character in "*?[")

    def matches(self, topic: str) -> bool:
        """Return True if `topic` matches the pattern."""
        return fnmatchcase(topic, self.pattern)


def new_route(pattern: str, function: Callable[..., Any], declared: Declared) -> Route:
    """Return a route to `function`. Raises ConfigurationError if the declared options are invalid."""
    run_options = {key: value for key, value in declared.options.items() if key in _PROCESSOR_OPTIONS}
    run_options.setdefault("retries", said_by(function).get("retries", _RETRIES))
    declaration = declaration_of(function, "handler", **run_options)
    handler = f"handler {declaration.name}"
    options = {
        "concurrency": 1 if declared.batch else 4, "idempotent": False, "remember": _DAY,
        "size": 100, "within": 0.5, "rate": None, **declared.options,
    }  # fmt: skip
    concurrency = check_whole(f"{handler}: concurrency", options["concurrency"], 1)
    remember = check_seconds(f"{handler}: remember", options["remember"], above=0)
    if not check_flag(f"{handler}: idempotent", options["idempotent"]):
        remember = 0.0
    if not declared.batch:
        check_takes_one("handler", function, "one message")
        rate = None if options["rate"] is None else Rate.of(f"{handler}: rate", options["rate"])
        return Route(pattern, function, declaration, concurrency, remember, rate=rate)
    if options["rate"] is not None:
        raise ConfigurationError(f"{handler}: a rate limits single messages, not batches")
    if declaration.execution == "inline":
        raise ConfigurationError(f"{handler}: a batch cannot be handled inline; use thread")
    size = check_whole(f"{handler}: size", options["size"], 1)
    within = check_seconds(f"{handler}: within", options["within"], 0)
    check_takes_one("batch handler", function, "one list of messages")
    batch = _Batch(function) if declaration.execution == "async" else _BatchCall(function)
    return Route(pattern, batch, declaration, concurrency, remember, Batching(size, within))


def no_route(topic: str) -> Route:
    """Return the route of a topic without a handler: its messages become dead letters."""
    return Route(topic, _NoHandler(topic), Declaration("none", "inline"), 1, 0.0)


# Classes, not closures: a handler may be pickled for another process.


class _BatchCall:
    """A batch handler's call that returns the failures; an awaitable value is deferred."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, messages: Sequence[Message]) -> Any:
        value = self._function(messages)
        if is_awaitable(value):
            return Deferred(value, lambda returned: failures(returned, messages))
        return failures(value, messages)


class _Batch(_BatchCall):
    async def __call__(self, messages: Sequence[Message]) -> list[Failed | None]:
        return failures(await resolved(self._function(messages)), messages)


class _NoHandler:
    def __init__(self, topic: str) -> None:
        self._topic = topic

    def __call__(self, _: Message) -> None:
        raise Reject(f"there is no handler for the topic {self._topic}")
