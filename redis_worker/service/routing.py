"""Which handler a topic's messages go to, and how that handler is to be called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from redis_worker.engine.awaitables import Deferred, is_awaitable, resolved
from redis_worker.engine.batches import failures
from redis_worker.service.declared_options import Declared
from redis_worker.vocabulary.calls import check_takes_one
from redis_worker.vocabulary.checks import check_flag, check_seconds, check_whole
from redis_worker.vocabulary.errors import ConfigurationError, Reject
from redis_worker.vocabulary.message import Message
from redis_worker.vocabulary.processor import Declaration, declaration_of, said_by

# A message that fails is tried so often again where its handler does not say: nobody waits for its result.
_RETRIES = 3
_DAY = 86_400.0
_OF_A_PROCESSOR = ("execution", "timeout", "retries", "retry_backoff", "retry_backoff_max")


@dataclass(frozen=True, slots=True)
class Batching:
    """How messages are put together."""

    size: int
    """The most messages in a batch."""
    within: float
    """How long a batch waits for more after its first message, in seconds."""


@dataclass(frozen=True, slots=True)
class Route:
    """A handler, and the topics it is for."""

    pattern: str
    """The name of a topic, or a pattern in which * stands for anything and ? for one character."""
    call: Callable[[Any], Any]
    """What is called with a message, or with a batch of them."""
    declaration: Declaration
    concurrency: int
    """How many messages (or batches) of one topic are handled at once."""
    remember: float
    """For so many seconds it is remembered that a message was completed; 0 where it is not idempotent."""
    batching: Batching | None = None

    @property
    def is_pattern(self) -> bool:
        """True when it may match topics that are not known yet."""
        return any(character in self.pattern for character in "*?[")

    def matches(self, topic: str) -> bool:
        """Whether the messages of `topic` go here."""
        return fnmatchcase(topic, self.pattern)


def new_route(pattern: str, function: Callable[..., Any], declared: Declared) -> Route:
    """A route to `function`. Raises ConfigurationError where what is declared does not fit."""
    own = {key: value for key, value in declared.options.items() if key in _OF_A_PROCESSOR}
    own.setdefault("retries", said_by(function).get("retries", _RETRIES))
    declaration = declaration_of(function, "handler", **own)
    handler = f"handler {declaration.name}"
    options = {
        "concurrency": 1 if declared.batch else 4, "idempotent": False, "remember": _DAY,
        "size": 100, "within": 0.5, **declared.options,
    }  # fmt: skip
    concurrency = check_whole(f"{handler}: concurrency", options["concurrency"], 1)
    remember = check_seconds(f"{handler}: remember", options["remember"], above=0)
    if not check_flag(f"{handler}: idempotent", options["idempotent"]):
        remember = 0.0
    if not declared.batch:
        check_takes_one("handler", function, "one message")
        call = _Quiet(function) if declaration.execution == "async" else _QuietCall(function)
        return Route(pattern, call, declaration, concurrency, remember)
    if declaration.execution == "inline":
        raise ConfigurationError(f"{handler}: a batch cannot be handled inline; use thread")
    size = check_whole(f"{handler}: size", options["size"], 1)
    within = check_seconds(f"{handler}: within", options["within"], 0)
    check_takes_one("batch handler", function, "one list of messages")
    batch = _Batch(function) if declaration.execution == "async" else _BatchCall(function)
    return Route(pattern, batch, declaration, concurrency, remember, Batching(size, within))


def no_route(topic: str) -> Route:
    """Where the messages of `topic` go when there is no handler for it: to the dead letters."""
    return Route(topic, _NoHandler(topic), Declaration("none", "inline"), 1, 0.0)


# Objects and not closures: a handler may be sent to a process.


class _Wrapper:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function


class _QuietCall(_Wrapper):
    """A handler's call without its value, which need not be JSON; an awaitable is returned, to be awaited."""

    def __call__(self, message: Message) -> Any:
        value = self._function(message)
        return Deferred(value, lambda _: None) if is_awaitable(value) else None


class _Quiet(_Wrapper):
    async def __call__(self, message: Message) -> None:
        await resolved(self._function(message))


class _BatchCall(_Wrapper):
    """A batch handler's call, whose value is the failures; an awaitable is returned, to be awaited."""

    def __call__(self, messages: Sequence[Message]) -> Any:
        value = self._function(messages)
        if is_awaitable(value):
            return Deferred(value, lambda returned: failures(returned, messages))
        return failures(value, messages)


class _Batch(_Wrapper):
    async def __call__(self, messages: Sequence[Message]) -> dict[str, list[Any]]:
        return failures(await resolved(self._function(messages)), messages)


class _NoHandler:
    def __init__(self, topic: str) -> None:
        self._topic = topic

    def __call__(self, _: Message) -> None:
        raise Reject(f"there is no handler for the topic {self._topic}")
