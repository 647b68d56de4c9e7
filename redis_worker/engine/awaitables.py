"""Awaitables that plain functions return: a plain decorator often hides a coroutine function."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any


def is_awaitable(value: Any) -> bool:
    """Return True if `value` must be awaited."""
    return hasattr(type(value), "__await__")


async def resolved(value: Any) -> Any:
    """Return `value`, awaited until it is no awaitable."""
    while is_awaitable(value):
        value = await value
    return value


class Deferred:
    """An awaitable that applies a function to the value of another."""

    def __init__(self, value: Any, then: Callable[[Any], Any]) -> None:
        self._value = value
        self._then = then

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._resolve().__await__()

    async def _resolve(self) -> Any:
        return self._then(await resolved(self._value))

    def close(self) -> None:
        """Close the inner awaitable."""
        discard(self._value)


class QuietCall:
    """A call of a plain function that drops the value, which need not be JSON; an awaitable value is deferred.

    A class, not a closure: a function may be pickled for another process.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, argument: Any) -> Any:
        value = self._function(argument)
        return Deferred(value, lambda _: None) if is_awaitable(value) else None


class QuietCoroutine(QuietCall):
    """The same for a coroutine function."""

    async def __call__(self, argument: Any) -> None:
        await resolved(self._function(argument))


def discard(value: Any) -> None:
    """Close `value` if it is a coroutine, so that Python does not warn that it was never awaited."""
    close = getattr(value, "close", None) if is_awaitable(value) else None
    if close is not None:
        close()


def unawaited(value: Any, function: str = "the function") -> TypeError | None:
    """Discard a `value` that is an awaitable, and return the error of the call that returned it; otherwise None."""
    if not is_awaitable(value):
        return None
    discard(value)
    return TypeError(f"{function} returned an awaitable that nothing awaits; declare it `async def`")
