"""Awaitables that plain functions return: a decorator that is no coroutine function often hides one that is."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any


def is_awaitable(value: Any) -> bool:
    """Return True where `value` is to be awaited."""
    return hasattr(type(value), "__await__")


async def resolved(value: Any) -> Any:
    """Return the value behind an awaitable, or behind the awaitables that it returns in turn."""
    while is_awaitable(value):
        value = await value
    return value


class Deferred:
    """An awaitable whose value is passed through a function."""

    def __init__(self, value: Any, then: Callable[[Any], Any]) -> None:
        self._value = value
        self._then = then

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._resolve().__await__()

    async def _resolve(self) -> Any:
        return self._then(await resolved(self._value))

    def close(self) -> None:
        """Close the awaitable behind this one."""
        discard(self._value)


def discard(value: Any) -> None:
    """Close `value` where it is a coroutine, so that Python does not warn of one that was never awaited."""
    close = getattr(value, "close", None) if is_awaitable(value) else None
    if close is not None:
        close()


def unawaited(value: Any, function: str = "the function") -> TypeError | None:
    """Return the error of a call whose `value` is an awaitable that nothing can await, and discard it; or None."""
    if not is_awaitable(value):
        return None
    discard(value)
    return TypeError(f"{function} returned an awaitable, and runs where nothing awaits it; declare it `async def`")
