"""Which handler a topic's messages go to, and how that handler is to be called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from redis_worker.engine.awaitables import Deferred, is_awaitable, resolved
from redis_worker.engine.batches import failures
from redis_worker.vocabulary.errors import ConfigurationError, Reject
from redis_worker.vocabulary.message import Message
from redis_worker.vocabulary.processor import Declaration, declaration_of, said_by

# A message that fails is tried so often again where its handler does not say: nobody waits for its result.
_RETRIES = 3


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


def new_route(
    pattern: str,
    function: Callable[..., Any],
    *,
    concurrency: int,
    idempotent: bool,
    remember: float,
    batching: Batching | None = None,
    **declared: Any,
) -> Route:
    """A route to `function`. Raises ConfigurationError where what is said does not fit."""
    if declared.get("retries") is None:
        declared["retries"] = said_by(function).get("retries", _RETRIES)
    declaration = declaration_of(function, "handler", **declared)
    problem = None
    if concurrency < 1:
        problem = f"concurrency must be at least 1, got {concurrency}"
    elif idempotent and not remember > 0:
        problem = f"remember must be above 0 seconds, got {remember:g}"
    elif batching is not None and batching.size < 1:
        problem = f"size must be at least 1, got {batching.size}"
    elif batching is not None and not batching.within >= 0:
        problem = f"within must not be negative, got {batching.within:g}"
    elif batching is not None and declaration.execution == "inline":
        problem = "a batch cannot be handled inline; use thread"
    if problem:
        raise ConfigurationError(f"handler {declaration.name}: {problem}")
    is_async = declaration.execution == "async"
    if batching is None:
        call: Callable[[Any], Any] = _Quiet(function) if is_async else _QuietCall(function)
    else:
        call = _Batch(function) if is_async else _BatchCall(function)
    return Route(pattern, call, declaration, concurrency, remember if idempotent else 0.0, batching)


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
