"""Flows: calls of one queue that wait for each other, submitted together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Concatenate, Generic, TypeAlias, TypeVar, cast, overload

from redis_worker.functions.function import Call, Submitter, Submitting
from redis_worker.functions.handle import Handle
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.ids import id_text, new_id

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
V = TypeVar("V")

Link: TypeAlias = Submitting[Concatenate[A, ...], B] | Call[B]
"""A step of a chain: a function that takes the result before it, or a call that only waits."""
_AnyLink: TypeAlias = Submitting[..., Any] | Call[Any]


class Source(Generic[V]):
    """A part of a flow, which gives the next step a value of the type V."""


class Chain(Source[R]):
    """Steps that run one after the other, see `chain`."""

    def __init__(self, first: Call[Any] | Source[Any], links: Sequence[_AnyLink]) -> None:
        self.first = first
        self.links = links

    async def submit(self) -> Handle[R]:
        """Submit the steps; return the handle of the last. Raises ConfigurationError, Disconnected and Refused."""
        queue, calls, last = _placed(self)
        await queue.submit_many(calls)
        return cast(Handle[R], last)

    def submit_sync(self) -> Handle[R]:
        """Submit as `submit` does, from code without an event loop."""
        queue, calls, last = _placed(self)
        queue.submit_many_sync(calls)
        return cast(Handle[R], last)


class Group(Source[list[R]], Generic[R]):
    """Calls and chains that run at the same time, see `group`."""

    def __init__(self, parts: Sequence[Call[R] | Chain[R]]) -> None:
        self.parts = parts

    async def submit(self) -> list[Handle[R]]:
        """Submit the calls; return their handles, and those of the last steps of chains.

        Raises ConfigurationError, Disconnected and Refused.
        """
        queue, calls, handles = _placed(self)
        await queue.submit_many(calls)
        return cast(list[Handle[R]], handles)

    def submit_sync(self) -> list[Handle[R]]:
        """Submit as `submit` does, from code without an event loop."""
        queue, calls, handles = _placed(self)
        queue.submit_many_sync(calls)
        return cast(list[Handle[R]], handles)


def group(*parts: Call[R] | Chain[R]) -> Group[R]:
    """Return calls and chains to be run at the same time: `await group(f.call(1), f.call(2)).submit()`.

    As the first part of a chain it gives the next step the list of all results.
    """
    return Group(parts)


@overload
def chain(first: Call[A] | Source[A], second: Link[A, B], /) -> Chain[B]: ...
@overload
def chain(first: Call[A] | Source[A], second: Link[A, B], third: Link[B, C], /) -> Chain[C]: ...
@overload
def chain(first: Call[A] | Source[A], second: Link[A, B], third: Link[B, C], fourth: Link[C, D], /) -> Chain[D]: ...
@overload
def chain(
    first: Call[A] | Source[A],
    second: Link[A, B],
    third: Link[B, C],
    fourth: Link[C, D],
    fifth: Link[D, E],
    /,
) -> Chain[E]: ...
@overload
def chain(
    first: Call[A] | Source[A],
    second: Link[A, B],
    third: Link[B, C],
    fourth: Link[C, D],
    fifth: Link[D, E],
    sixth: _AnyLink,
    /,
    *more: _AnyLink,
) -> Chain[Any]: ...


def chain(first: Call[Any] | Source[Any], /, *links: _AnyLink) -> Chain[Any]:
    """Return steps to be run one after the other: `await chain(download.call(url), resize, upload).submit()`.

    A function takes the result of the step before it as its first argument, and defaults for the others; `options` of
    it are those of its submission. A call only waits for the step before it. Types are checked for five steps.
    """
    return Chain(first, links)


def _placed(flow: Source[Any]) -> tuple[Submitter, list[Call[Any]], Handle[Any] | list[Handle[Any]]]:
    """Return the queue of a flow, its calls in the order of their submission, and the handles of its ends.

    Each call has a new id. Raises ConfigurationError.
    """
    calls: list[Call[Any]] = []
    ends = _place(flow, calls)
    queues = {call.function.queue.name: call.function.queue for call in calls}
    if len(queues) != 1:
        raise ConfigurationError(f"a flow has calls of one queue; this has {' and '.join(sorted(queues)) or 'none'}")
    # Those that wait for nothing come first, so that the others are sent together.
    return next(iter(queues.values())), sorted(calls, key=lambda call: bool(call.options.awaited)), ends


def _place(part: Call[Any] | Source[Any], calls: list[Call[Any]]) -> Handle[Any] | list[Handle[Any]]:
    """Append the calls of a part, each after those that it waits for; return the handles of its ends."""
    if isinstance(part, Call):
        return _append(part, calls, ())
    if isinstance(part, Group):
        ends = [_place(each, calls) for each in part.parts]
        return cast(list[Handle[Any]], ends)
    assert isinstance(part, Chain)
    last = _place(part.first, calls)
    for link in part.links:
        call = link if isinstance(link, Call) else link.call(last)
        last = _append(call, calls, last if isinstance(last, list) else [last])
    return last


def _append(call: Call[Any], calls: list[Call[Any]], before: Sequence[Handle[Any]]) -> Handle[Any]:
    options, function = call.options, call.function
    if options.unique is not False:
        raise ConfigurationError(
            f"{function.name} is unique by its arguments, so its id is not known in a flow: submit it before, and name "
            "its handle in after="
        )
    id = new_id() if options.id is None else id_text(options.id)
    awaiting = options.with_(after=[*options.awaited, *before]) if before else options
    calls.append(replace(call, id=id, options=awaiting))
    return Handle(function.queue, id, function.signature.result)
