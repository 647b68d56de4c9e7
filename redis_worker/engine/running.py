"""The running tasks, on request: ids are read and stacks are walked only then."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from redis_worker.engine.awaitables import resolved
from redis_worker.engine.execution import Coroutines, Threads, compute_or_defer, within
from redis_worker.engine.handler import Handler
from redis_worker.engine.thread_runner import Caller

# These call a coroutine function, and those a plain one in a thread: the frames after them are the processor's.
_COROUTINES = {call.__code__ for call in (Handler.handle, Coroutines.call, within, resolved)}
_CALLS = {Handler.handle_here.__code__}


def show_below(awaiting: Callable[..., Any], calling: Callable[..., Any]) -> None:
    """Have stacks begin below these functions: one awaits a user's coroutine, the other calls a user's function."""
    _COROUTINES.add(awaiting.__code__)
    _CALLS.add(calling.__code__)


class RunningTask(NamedTuple):
    """A task that holds a slot."""

    id: str | None
    """The task's id; None if it is unreadable."""
    seconds: float
    """The run time so far."""
    stack: str
    """The processor's stack, as in a traceback, without values; empty if it is unknown."""
    function: str | None = None
    """The name of the function of a TaskQueue; None for a processor or a handler."""


def stack_of(call: asyncio.Task[Any] | Caller | None) -> str:
    """Return the stack of the user's code in `call`, the task of an execution or a thread, as in a traceback.

    It is empty where the stack is unknown, as of a process.
    """
    if call is None:
        return ""
    if isinstance(call, Caller):
        user = _in_caller(call) if call.awaiting is None else _processor(call.awaiting)
    else:
        user = _processor(call)
    frames = ((frame, frame.f_lineno) for frame in user)
    return "".join(traceback.StackSummary.extract(frames).format())


def _processor(task: asyncio.Task[Any]) -> list[FrameType]:
    """Return the frames of the processor's code, outermost first: the engine's are always the same."""
    frames: list[FrameType] | None = None
    for frame in _awaited(task.get_coro()):
        if frame.f_code is Threads.call.__code__:
            return _in_thread(frame.f_locals["arguments"])
        if frame.f_code in _COROUTINES:
            frames = []
        elif frames is not None:
            frames.append(frame)
    return frames or []


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of its awaitables, outermost first; Task.get_stack() has only one."""
    while coroutine is not None:
        for kind, next_ in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
            if (frame := getattr(coroutine, kind, None)) is not None:
                yield frame
                coroutine = getattr(coroutine, next_)
                break
        else:
            return


def _in_caller(caller: Caller) -> list[FrameType]:
    """Return the frames of the processor, or the parser, that the thread of `caller` runs, outermost first."""
    frame, frames = sys._current_frames().get(caller.ident), list[FrameType]()
    while frame is not None and frame.f_code not in _CALLS:
        frames.append(frame)
        frame = frame.f_back
    return [] if frame is None else frames[::-1]


def _in_thread(arguments: Any) -> list[FrameType]:
    """Return the frames of the call with these very `arguments`, in any thread, outermost first."""
    for innermost in sys._current_frames().values():
        frames = [frame for frame, _ in traceback.walk_stack(innermost)]
        for index, frame in enumerate(frames):
            if frame.f_code is compute_or_defer.__code__ and frame.f_locals["arguments"] is arguments:
                return frames[:index][::-1]
    return []
