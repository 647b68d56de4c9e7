"""The calls in a child process: it takes a number, runs the call of that number, and answers (its parent: child.py)."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from socket import MSG_DONTWAIT, socket
from time import perf_counter
from typing import Any

from redis_worker.engine.contexts import Contexts
from redis_worker.engine.execution import Answer, Encode, compute, refusal
from redis_worker.engine.lifespan import InChild
from redis_worker.engine.process_group import end_own_group, end_with, leave_interrupts_to_parent
from redis_worker.engine.streams import open_streams
from redis_worker.vocabulary.error_text import raised_at, traceback_text
from redis_worker.vocabulary.part import PART

NUMBER = struct.Struct("=Q")
LENGTH = struct.Struct("=I")
# The first message of a process: its imports are done.
READY = "ready"
# The first element of a message that a call sends before its answer.
MESSAGE = "message"

_parent: socket | None = None
# The number of the call that runs.
_running = 0
_sending = threading.Lock()


def send_to_parent(message: Any) -> None:
    """Send a message from the call that runs here to the code that made it; lost outside of a child process."""
    if _parent is not None:
        with suppress(OSError):
            _send(_parent, _pickled((MESSAGE, _running, message)))


def serve(calls: socket, numbers: socket, processor: Callable[[Any], Any], encode: Encode, part: str | None) -> None:
    """Run a child: answer calls until the parent closes the sockets."""
    own_pid = os.getpid()
    os.setsid()
    leave_interrupts_to_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    open_streams()
    parent = parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with(parent.pid, parent.sentinel)
    # The sockets are for this process only: a fork that returns from the processor must not answer in its place.
    for end in (calls, numbers):
        os.set_inheritable(end.fileno(), False)
        os.register_at_fork(after_in_child=end.close)
    global _parent  # noqa: PLW0603 - a process has one
    _parent = calls
    PART.set(part)
    if isinstance(processor, InChild):
        processor.open()
    with suppress(EOFError, OSError):
        _send(calls, _pickled(READY))
        _answer(calls, numbers, processor, encode)
    if os.getpid() == own_pid:
        end_own_group()


def _answer(calls: socket, numbers: socket, processor: Callable[[Any], Any], encode: Encode) -> None:
    """Run calls. Returns, or raises EOFError or OSError, at the end of the parent. The hot path."""
    global _running  # noqa: PLW0603 - as above
    contexts = Contexts()
    with open(calls.fileno(), "rb", closefd=False) as reader:

        def read(size: int) -> bytes:
            data = reader.read(size)
            if len(data) < size:
                raise EOFError
            return data

        data = b""

        def call(data: bytes) -> Any:
            return processor(pickle.loads(data))  # noqa: S301 - of our parent

        while data := data or numbers.recv(NUMBER.size):
            _running = number = NUMBER.unpack(data)[0]
            while True:  # calls that were taken back are passed over
                (found,) = NUMBER.unpack(read(NUMBER.size))
                arguments = read(*LENGTH.unpack(read(LENGTH.size)))
                if found == number:
                    break
            started = perf_counter()
            answer = contexts.fresh().run(compute, call, arguments, encode)
            ended = perf_counter()
            data = _next(numbers)
            # Nothing wakes the parent for an answer that goes the way of the numbers.
            _send(numbers if data else calls, _packed(number, ended - started, ended, answer))


def _packed(number: int, seconds: float, ended: float, answer: Answer) -> bytes:
    """Return `answer` as bytes, with its exception as text: many exceptions cannot be pickled."""
    error = answer.exception
    raised = None if error is None else (traceback_text(error), raised_at(error))
    try:
        return _pickled(
            (number, seconds, ended, raised, answer.result, answer.error, answer.verdict, answer.delay),
        )
    except (TypeError, AttributeError, pickle.PicklingError) as problem:  # only a value that is not encoded
        return _packed(number, seconds, ended, refusal("Processing error", problem))


def _next(numbers: socket) -> bytes:
    """Return the number of the next call, if it is there: a whole one, since they are sent and taken back whole."""
    try:
        return numbers.recv(NUMBER.size, MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def _pickled(message: Any) -> bytes:
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def _send(end: socket, message: bytes) -> None:
    with _sending:
        end.sendall(LENGTH.pack(len(message)) + message)
