"""Calls in child processes: for functions bound by the CPU, or that may crash their process."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from redis_worker.engine.contexts import Contexts
from redis_worker.engine.execution import Answer, Encode, TimedOut, Verdict, compute, refusal
from redis_worker.engine.process_group import end_group, end_own_group, end_with, leave_interrupts_to_parent
from redis_worker.engine.streams import open_streams
from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.vocabulary.error_text import raised_at, traceback_text
from redis_worker.vocabulary.errors import ConfigurationError, ProcessDied, RaisedInProcess
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.payload import success

# The time to wait for the end of a killed process, in seconds; and for the imports of a new one, before its task's time
# limit applies.
_PATIENCE = 1.0
_START_PATIENCE = 60.0
# The first message of a process: its imports are done.
_READY = "ready"


class Processes:
    """Calls of a plain function, with one process for each slot: a crash affects one task.

    Each process leads a group that ends with it: at a time limit, at the end of the worker and when it is killed, the
    programs that the function started end too.
    """

    def __init__(
        self,
        processor: Callable[[list[Any]], Any],
        timeout: float | None,
        concurrency: int,
        max_deliveries: int,
        encode: Encode = success,
    ) -> None:
        try:
            pickle.dumps(processor)
        except Exception as error:
            raise ConfigurationError(
                f"the processor cannot be sent to a process ({error}); define it at the top level of a module"
            ) from None
        open_streams()  # a pipe to a process must not get the number of a standard stream
        self._processor = processor
        self._encode = encode
        self._timeout = timeout
        self._tries = max_deliveries
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        # The threads only wait for the processes.
        self._pool = ThreadPool(concurrency, "redis-worker-process")

    async def call(self, arguments: list[Any]) -> Answer:
        for _ in range(self._tries):
            answer = await self._try(arguments)
            if answer is not None:
                return answer
        times = f"{self._tries} times" if self._tries > 1 else "once"
        return refusal("Processing error", ProcessDied(f"the process that ran the task died, {times}"))

    async def _try(self, arguments: list[Any]) -> Answer | None:
        child = self._free()
        self._busy.add(child)
        call: asyncio.Future[Any] | None = None
        try:
            if not child.is_ready:  # apart from the call: the time limit is one of the task, not of the start
                call = self._pool.run(child.start)
                await asyncio.wait({call})
            call = self._pool.run(child.call, arguments)
            if not (await asyncio.wait({call}, timeout=self._timeout))[0]:
                raise TimedOut
            answer: Answer | None = call.result()
            if answer is not None:
                self._idle.append(child)
            return answer
        finally:
            assert call is not None
            call.add_done_callback(lambda _: self._busy.discard(child))
            if not call.done():
                child.kill()

    def _free(self) -> _Child:
        """Return an idle process. One that died while idle is replaced, and counts as no death of a task."""
        while self._idle:
            child = self._idle.pop()
            if child.is_idle():
                return child
            child.end()
        return _Child(self._processor, self._encode)

    def close(self) -> None:
        for child in (*self._idle, *self._busy):
            child.kill()
        for child in self._idle:
            child.end()
        for child in self._busy:
            child.over.wait(_PATIENCE)  # the thread of its call sees it end
        self._pool.close()


class _Child:
    """One process that answers calls, one at a time; the first call starts it."""

    def __init__(self, processor: Callable[[list[Any]], Any], encode: Encode) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._child_pipe = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self._child_pipe, processor, encode, PART.get()), name="redis-worker-process"
        )
        self.over = threading.Event()
        """Set when the process is gone, or will never start."""
        self._lock = threading.Lock()
        self._killed = False
        self.is_ready = False
        """True once the process waits for calls."""
        self._ended: int | None = None
        """A descriptor that becomes readable when the process ends."""
        self._events = select.poll()

    def call(self, arguments: list[Any]) -> Answer | None:
        """Return the answer of the process, or None if it died. Runs in a thread of the pool."""
        answer = None
        try:
            self._start()
            self._pipe.send(arguments)
            if (received := self._receive()) == _READY:  # it has started late
                self.is_ready = True
                received = self._receive()
            answer = _unpacked(*received)
        except (EOFError, OSError):
            pass
        except BaseException as error:  # the arguments cannot be sent
            answer = refusal("Processing error", error)
        if answer is None:
            self.end()
        return answer

    def start(self) -> None:
        """Start the process and wait until its imports are done; `call` reports a failure to start."""
        with suppress(Exception):
            self._start()
            self.is_ready = self._receive(_START_PATIENCE) == _READY

    def _receive(self, seconds: float | None = None) -> Any:
        """Return the next message. Raises EOFError if the process has ended, TimeoutError after `seconds`."""
        # Not of the pipe alone: it stays open while any process has a copy of the other end.
        found = self._events.poll(None if seconds is None else seconds * 1000)
        if any(descriptor != self._ended for descriptor, _ in found):
            return self._pipe.recv()
        raise EOFError if found else TimeoutError

    def is_idle(self) -> bool:
        """Return True if the process lives and has sent nothing."""
        return not self._events.poll(0)

    def kill(self) -> None:
        """Kill the process without waiting; a call under way then returns None."""
        with self._lock:
            self._killed = True
            if self._ended is None:
                self.over.set()
                return
            assert self._process.pid is not None
            end_group(self._process.pid)
            self._process.kill()  # a process that has just started leads no group yet

    def end(self) -> None:
        """Release everything of the process; no call may be under way."""
        self.kill()
        with self._lock:
            self._pipe.close()
            self._child_pipe.close()
            if self._ended is None:
                return
            # By the descriptor: multiprocessing waits for a pipe that children of the process may hold.
            ended = select.poll()
            ended.register(self._ended, select.POLLIN)
            if ended.poll(_PATIENCE * 1000):
                self._process.join()
            os.close(self._ended)
            self._ended = None
            with suppress(ValueError):  # it is not gone yet
                self._process.close()
            self.over.set()

    def _start(self) -> None:
        with self._lock:
            if self._killed:
                raise EOFError
            if self._ended is not None:
                return
            # In the thread, because it takes some 50 ms. Ctrl-C in a terminal must not reach the process before it
            # leads a group: it starts with the signals that this thread blocks. The tracker unblocks them.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self._process.start()
            self._child_pipe.close()
            self._ended = _end_of(self._process)
            self._events.register(self._pipe, select.POLLIN)
            self._events.register(self._ended, select.POLLIN)


def _end_of(process: multiprocessing.process.BaseProcess) -> int:
    """Return a descriptor that becomes readable when `process` ends."""
    try:
        return os.pidfd_open(process.pid or 0)
    except (AttributeError, OSError):  # not on this system
        return os.dup(process.sentinel)  # readable once it and all its forks have ended


def _serve(pipe: Connection, processor: Callable[[list[Any]], Any], encode: Encode, part: str | None) -> None:
    """Run a child: answer calls until the parent closes the pipe."""
    own_pid = os.getpid()
    os.setsid()
    leave_interrupts_to_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    open_streams()
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with(parent.pid, parent.sentinel)
    # The pipe is for this process only: a fork that returns from the processor must not answer in its place.
    os.set_inheritable(pipe.fileno(), False)
    os.register_at_fork(after_in_child=pipe.close)
    PART.set(part)
    contexts = Contexts()
    with suppress(EOFError, OSError):
        pipe.send(_READY)
        while True:
            _send(pipe, contexts.fresh().run(compute, processor, pipe.recv(), encode))
    if os.getpid() == own_pid:
        end_own_group()


def _send(pipe: Connection, answer: Answer) -> None:
    try:
        pipe.send(_packed(answer))
    except (TypeError, AttributeError, pickle.PicklingError) as error:  # only a value that is not encoded
        pipe.send(_packed(refusal("Processing error", error)))


def _packed(answer: Answer) -> tuple[Any, ...]:
    """Return `answer` with its exception as text: many exceptions cannot be pickled."""
    error = answer.exception
    raised = None if error is None else (traceback_text(error), raised_at(error))
    return answer.result, answer.error, answer.verdict, answer.delay, raised


def _unpacked(result: Any, error: str | None, verdict: Verdict, delay: float | None, raised: Any) -> Answer:
    return Answer(result, error, verdict, delay, None if raised is None else RaisedInProcess(*raised))
