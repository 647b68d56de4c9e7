"""Handlers: functions registered for topics by decorators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar, Unpack, overload

from redis_worker.service.declared_options import Declared, note
from redis_worker.service.routing import Route, new_route
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.message import Message, check_prefix, check_topic
from redis_worker.vocabulary.processor import Execution

F = TypeVar("F", bound=Callable[..., Any])
H = TypeVar("H", bound=Callable[[Message], Any])
B = TypeVar("B", bound=Callable[[list[Message]], Any])


class HandlerOptions(TypedDict, total=False):
    """The options of a handler; None is the same as none."""

    concurrency: int | None
    execution: Execution | None
    timeout: Duration | None
    retries: int | None
    retry_backoff: Duration | None
    retry_backoff_max: Duration | None
    rate: str | None
    idempotent: bool | None
    remember: Duration | None


class BatchOptions(HandlerOptions, total=False):
    """The options of a batch handler."""

    size: int | None
    within: Duration | None


class Handlers:
    """Handlers by topic: a name takes precedence over a pattern, a longer pattern over a shorter one.

    handlers = Handlers()

    @handlers.handler("order.reminder", concurrency=8, retries=3, timeout=30)
    async def remind(message): ...

    worker = TopicWorker("redis://localhost")
    worker.include(handlers)
    """

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._default: Route | None = None
        self._changed = asyncio.Event()

    def handler(self, pattern: str, **options: Unpack[HandlerOptions]) -> Callable[[H], H]:
        """Register the decorated function for `pattern`, a topic or a pattern such as `order.*`.

        The function receives a Message and runs as a processor does; its return value is ignored. If it raises, the
        message is retried `retries` times (3), then becomes a dead letter. `concurrency` (4) applies to each topic.
        `rate`, as "100/m", limits the starts of each topic in any period of that length, over all workers.
        `idempotent` skips messages with an id that was completed within `remember` (24 h). A file that names the
        function inherits the options that it does not set. Raises ConfigurationError.
        """
        return self._declaring(pattern, "handler", options)

    def batch_handler(self, pattern: str, **options: Unpack[BatchOptions]) -> Callable[[B], B]:
        """Register the decorated function, as `handler` does, for lists of up to `size` (100) messages.

        A batch waits `within` (0.5 s) for more after its first message; `concurrency` (1) limits the batches that run
        at once. The function returns None, or `{id: reason}` of the failed messages: only those are retried. A
        reason is a text or an exception, Retry and Reject included. If the function raises, all have failed.
        Raises ConfigurationError.
        """
        return self._declaring(pattern, "batch handler", options)

    @overload
    def default_handler(self, function: H, /) -> H: ...
    @overload
    def default_handler(self, /, **options: Unpack[HandlerOptions]) -> Callable[[H], H]: ...

    def default_handler(self, function: H | None = None, /, **options: Unpack[HandlerOptions]) -> H | Callable[[H], H]:
        """Register the decorated function for all known topics without another handler.

        Takes the options of `handler`, or none. Raises ConfigurationError.
        """
        declared = _declared("default handler", options)

        def register(function: H) -> H:
            self._default = new_route("*", function, declared)
            note(function, "*", declared)
            return function

        return register if function is None else register(function)

    def add(self, pattern: str, function: Callable[..., Any], declared: Declared) -> None:
        """Register `function` for `pattern` without a decorator. Raises ConfigurationError."""
        self._add(new_route(pattern, function, declared))

    def include(self, handlers: Handlers) -> None:
        """Add all of `handlers`, the default included. Raises ConfigurationError for two of one pattern."""
        for route in handlers._routes.values():
            self._add(route)
        self._default = handlers._default or self._default

    @property
    def named(self) -> set[str]:
        """The topics that handlers name."""
        return {pattern for pattern, route in self._routes.items() if not route.is_pattern}

    @property
    def wants_known(self) -> bool:
        """True if a pattern or a default handler may match topics that no handler names."""
        return self._default is not None or any(route.is_pattern for route in self._routes.values())

    def find(self, topic: str) -> Route | None:
        """Return the route of `topic`; None if nothing matches and no default is registered."""
        matching = [route for route in self._routes.values() if route.matches(topic)]
        if not matching:
            return self._default
        return max(matching, key=lambda route: (not route.is_pattern, len(route.pattern)))

    def routes(self) -> list[Route]:
        """Return the routes in the order of registration, the default last."""
        return [*self._routes.values(), *([self._default] if self._default else [])]

    def _declaring(self, pattern: str, kind: str, options: Mapping[str, Any]) -> Callable[[F], F]:
        declared = _declared(kind, options)

        def register(function: F) -> F:
            self.add(pattern, function, declared)
            note(function, pattern, declared)
            return function

        return register

    def _add(self, route: Route) -> None:
        if route.is_pattern:
            check_prefix(route.pattern)
        else:
            check_topic(route.pattern)
        if route.pattern in self._routes:
            raise ConfigurationError(f"two handlers for {route.pattern!r}")
        self._routes[route.pattern] = route
        self._changed.set()


def _declared(kind: str, options: Mapping[str, Any]) -> Declared:
    batch = kind == "batch handler"
    if unknown := options.keys() - (BatchOptions if batch else HandlerOptions).__optional_keys__:
        taken = "batch_handler" if batch else "handler"
        raise ConfigurationError(f"the {kind} takes the options of {taken}(), not {', '.join(sorted(unknown))}")
    return Declared(batch, {name: value for name, value in options.items() if value is not None})
