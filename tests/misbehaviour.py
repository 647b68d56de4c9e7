"""Functions that misbehave in a way that their argument names, for pools, topics, batches and cron jobs."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from redis_worker import Message, Reject, Retry, processor

LEAK = contextvars.ContextVar("leak", default="clean")
# Longer than anything but a hanging call takes on a busy machine, in seconds.
TIMEOUT = 5.0
HANG = 6.0


class Panic(BaseException):
    """As Rust extensions raise it."""


class Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError("no name")


class Unnamed(Exception, metaclass=Nameless):
    pass


class Faceless(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise Panic("no class")


class Careless(Retry):
    """A subclass that does not call its base."""

    def __init__(self) -> None:
        pass


def _raise(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def call() -> Any:
        raise make()

    return call


def _leak() -> str:
    LEAK.set("leaked")
    decimal.getcontext().prec = 3
    return "leaked"


def _deep() -> Any:
    value: Any = []
    for _ in range(5000):
        value = [value]
    return value


class Hostile(dict[str, int]):
    def items(self) -> Any:
        raise Panic("no items")


# Way -> what it does, in a plain function and in a coroutine function alike.
WAYS: dict[str, Callable[[], Any]] = {
    "panic": _raise(lambda: Panic("panicked")),
    "silent": _raise(Silent),
    "unnamed": _raise(Unnamed),
    "faceless": _raise(lambda: Faceless("x")),
    "exit": lambda: sys.exit(3),
    "interrupt": _raise(KeyboardInterrupt),
    "generator exit": _raise(GeneratorExit),
    "cancelled": _raise(asyncio.CancelledError),
    "stop iteration": lambda: next(iter(())),
    "key": lambda: {}["missing"],
    "long text": _raise(lambda: ValueError("x" * 3_000_000)),
    "half a pair": _raise(lambda: ValueError("\ud800")),
    "group": _raise(
        lambda: BaseExceptionGroup("group", [ValueError("first cause"), BaseExceptionGroup("g", [Panic("second")])])
    ),
    "no json": object,
    "nan": lambda: [float("nan")],
    "deep": _deep,
    "hostile value": lambda: Hostile(a=1, b=float("nan")),  # type: ignore[arg-type]
    "leak": _leak,
    "reject": _raise(lambda: Reject("rejected")),
    "retry text": _raise(lambda: Retry(delay="soon")),
    "retry inf": _raise(lambda: Retry(delay=float("inf"))),
    "retry nan": _raise(lambda: Retry(delay=float("nan"))),
    "retry ever": _raise(lambda: Retry(delay=1e18)),
    "retry past": _raise(lambda: Retry(delay=-1)),
    "retry huge": _raise(lambda: Retry(delay=10**400)),
    "retry delta": _raise(lambda: Retry(delay=timedelta(milliseconds=20))),
    "careless": _raise(Careless),
}


async def _cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(30)


async def _cancel_itself_and_return() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "cancelled too late"


async def _cancelled_child() -> None:
    child = asyncio.create_task(asyncio.sleep(30))
    child.cancel()
    await child


async def _group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(30))
        group.create_task(_fail())


async def _fail() -> None:
    raise ValueError("first cause")


async def _hang() -> None:
    await asyncio.sleep(30)


async def _forgotten() -> Any:
    return _late()  # it should have been awaited


async def _late() -> str:
    await asyncio.sleep(0)
    return "late"


# Ways that only a coroutine has, and those that only a plain function has.
ASYNC_WAYS: dict[str, Callable[[], Any]] = {
    "cancels itself": _cancel_itself,
    "cancels itself and returns": _cancel_itself_and_return,
    "child cancelled": _cancelled_child,
    "task group": _group,
    "hang": _hang,
    "forgotten": _forgotten,
}
PLAIN_WAYS: dict[str, Callable[[], Any]] = {"awaitable": _late}
SLOW_WAYS: dict[str, Callable[[], Any]] = {"hang": lambda: time.sleep(HANG)}


def look() -> str:
    """Return what a task finds in its context."""
    return f"{LEAK.get()} {decimal.getcontext().prec}"


def act(way: str) -> Any:
    if way == "ordinary":
        return look()
    return {**WAYS, **PLAIN_WAYS, **SLOW_WAYS}[way]()


async def act_async(way: str) -> Any:
    if way in ASYNC_WAYS:
        return await ASYNC_WAYS[way]()
    return act(way)


@processor(execution="inline")
def inline(arguments: list[Any]) -> Any:
    return act(arguments[0])


@processor(execution="thread", timeout=TIMEOUT)
def thread(arguments: list[Any]) -> Any:
    return act(arguments[0])


@processor(execution="process", timeout=60)
def process(arguments: list[Any]) -> Any:
    return act(arguments[0])


@processor(timeout=TIMEOUT)
async def limited(arguments: list[Any]) -> Any:
    return await act_async(arguments[0])


@processor
async def coroutine(arguments: list[Any]) -> Any:
    return await act_async(arguments[0])


PROCESSORS: dict[str, Callable[[list[Any]], Any]] = {
    "inline": inline, "thread": thread, "process": process, "limited": limited, "coroutine": coroutine,
}  # fmt: skip


def ways_of(execution: str) -> list[str]:
    """Return the ways to misbehave that make sense in an execution."""
    ways = list(WAYS)
    if execution in ("limited", "coroutine"):
        ways += [way for way in ASYNC_WAYS if execution == "limited" or way != "hang"]
    else:
        ways += PLAIN_WAYS
    return [*ways, "hang"] if execution == "thread" else ways


seen: list[str] = []
"""The contexts that ordinary messages and jobs have found."""


def handle(message: Message) -> Any:
    value = act(message.data)
    if message.data == "ordinary":
        seen.append(value)
    return value


async def handle_async(message: Message) -> Any:
    value = await act_async(message.data)
    if message.data == "ordinary":
        seen.append(value)
    return value


def handle_batch(messages: list[Message]) -> Any:
    return _judged([message for message in messages if message.data != "ordinary"], act)


def handle_batch_whole(messages: list[Message]) -> Any:
    """Misbehave as the first message that does, on behalf of the whole batch."""
    ways = [message.data for message in messages if message.data != "ordinary"]
    return act(ways[0]) if ways else None


def _judged(messages: list[Message], act: Callable[[str], Any]) -> dict[str, BaseException]:
    failed: dict[str, BaseException] = {}
    for message in messages:
        try:
            act(message.data)
        except BaseException as error:
            failed[message.id] = error
    return failed


def job(way: str) -> Any:
    return act(way)


async def job_async(way: str) -> Any:
    return await act_async(way)
