"""What runs just now, for whoever asks. Nothing is kept for it: ids are read and stacks are walked when asked for."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

from redis_worker.engine.awaitables import resolved
from redis_worker.engine.execution import Coroutines, Threads, compute_or_defer, within
from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.payload import read_object

# These call a coroutine function: the frames that come after theirs are the processor's.
_COROUTINES = (Coroutines.call.__code__, within.__code__, resolved.__code__)


class RunningTask(NamedTuple):
    """A task that holds a slot just now."""

    id: str | None
    """The task's id; None when it has none that can be read."""
    seconds: float
    """How long it has been running."""
    stack: str
    """Where the processor stands, as in a traceback, without any values; empty where that cannot be seen."""


def stack_of(coroutine: Any) -> str:
    """Where `coroutine` stands, and what it awaits, as in a traceback."""
    return _written(list(_awaited(coroutine)))


def running_task(task: asyncio.Task[None], raw: bytes, seconds: float) -> RunningTask:
    """What `task`, which works on `raw`, looks like from outside."""
    return RunningTask(_id(raw), seconds, _written(_processor(task)))


def _written(frames: list[FrameType]) -> str:
    return "".join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format())


def _id(raw: bytes) -> str | None:
    try:
        return read_object(raw)[0]
    except Unreadable as error:
        return error.id


def _processor(task: asyncio.Task[None]) -> list[FrameType]:
    """The frames of the processor's own code, outermost first: those of the engine before are always the same."""
    theirs: list[FrameType] | None = None
    for frame in _awaited(task.get_coro()):
        if frame.f_code is Threads.call.__code__:
            return _in_thread(frame.f_locals["arguments"])
        if frame.f_code in _COROUTINES:
            theirs = []
        elif theirs is not None:
            theirs.append(frame)
    return theirs or []


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits, outermost first; asyncio's get_stack() stops at the first."""
    while coroutine is not None:
        for kind, next_ in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
            if (frame := getattr(coroutine, kind, None)) is not None:
                yield frame
                coroutine = getattr(coroutine, next_)
                break
        else:
            return


def _in_thread(arguments: Any) -> list[FrameType]:
    """The frames within the call with these very `arguments`, in whichever thread it is, outermost first."""
    for innermost in sys._current_frames().values():
        frames = [frame for frame, _ in traceback.walk_stack(innermost)]
        for index, frame in enumerate(frames):
            if frame.f_code is compute_or_defer.__code__ and frame.f_locals["arguments"] is arguments:
                return frames[:index][::-1]
    return []
