"""A child process that answers calls, several in hand at once: the parent's side of it (its own: child_calls.py)."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

from redis_worker.engine.child_calls import LENGTH, MESSAGE, NUMBER, READY, serve
from redis_worker.engine.execution import Answer, Encode, Verdict
from redis_worker.engine.process_group import end_group
from redis_worker.engine.thread_pool import OwnThreads
from redis_worker.vocabulary.errors import RaisedInProcess
from redis_worker.vocabulary.part import PART

# The time to wait for the end of a killed process, in seconds; and for the imports of a new one, before its task's time
# limit applies.
_PATIENCE = 1.0
_START_PATIENCE = 60.0
_READ = 1 << 18


class Answered(NamedTuple):
    """The answer to the call with this number."""

    number: int
    answer: Answer
    seconds: float
    """The run time."""
    ended: float
    """The end of the call, by perf_counter, which all processes of a machine share."""


class Child:
    """One process, which runs the calls that it has in hand one after the other; its methods are for the event loop.

    Calls and answers go through one pair of sockets, the numbers of the calls through another: the process takes a
    number before it starts that call, and `take_back` takes the numbers that are left. Where the process has its next
    number already, an answer goes the way of the numbers, and waits for a call of `answers`; the last one wakes the
    event loop.
    """

    def __init__(
        self,
        processor: Callable[[Any], Any],
        encode: Encode,
        answered: Callable[[list[Answered]], None],
        died: Callable[[], None],
    ) -> None:
        """`died` is called once, when the process has ended, by itself or by `kill`, after its last `answered`."""
        self._answered = answered
        self._died = died
        self.on_message: Callable[[int, Any], None] = lambda _number, _message: None
        """Called with each message of a call that runs, and with its number: see `send_to_parent`."""
        self._calls, self._child_calls = socket.socketpair()
        self._numbers, self._child_numbers = socket.socketpair()
        self._calls.setblocking(False)
        self._unsent = bytearray()
        self._received = {self._numbers: bytearray(), self._calls: bytearray()}
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve,
            args=(self._child_calls, self._child_numbers, processor, encode, PART.get()),
            name="redis-worker-process",
        )
        self._killed = False
        self._lock = threading.Lock()
        """Held while the process is being started."""
        self._ended: int | None = None
        """A descriptor that becomes readable when the process ends."""
        self._ready = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def is_ready(self) -> bool:
        """True once the process waits for calls."""
        return self._ready.is_set()

    @property
    def is_full(self) -> bool:
        """True while a part of the calls waits to be sent."""
        return bool(self._unsent)

    @property
    def lives(self) -> bool:
        """True if the process has started, has not been killed and has not ended, though `died` may not know yet."""
        return self._ended is not None and not self._killed and not _readable(self._ended, 0.0)

    def start(self) -> asyncio.Task[None]:
        """Start the process; return the task that ends once it waits for calls, or has not for a minute, or has `died`.

        That task must not be cancelled: a process that nothing watches would be left behind.
        """
        if self._starting is None:
            self._starting = self._loop.create_task(self._be_started(), name="process")
        return self._starting

    async def _be_started(self) -> None:
        try:
            await OwnThreads("redis-worker-process").run(self._start)
        except Exception:
            self._end()
            return
        if self._ended is None:
            return  # it was closed meanwhile
        self._loop.add_reader(self._calls, self._collect)
        self._loop.add_reader(self._ended, self._end)
        if self._killed:
            self.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_PATIENCE):
                await self._ready.wait()

    def _start(self) -> None:
        # Ctrl-C in a terminal must not reach the process before it leads a group: it starts with the signals that this
        # thread blocks. The tracker unblocks them.
        with self._lock:
            if self._killed:
                raise EOFError
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self._process.start()  # takes some 50 ms, hence a thread
            self._child_calls.close()
            self._ended = _end_of(self._process)

    def send(self, calls: Sequence[tuple[int, bytes]]) -> None:
        """Hand over calls as number and arguments (`packed`), which run in this order after those in hand."""
        for number, arguments in calls:
            self._unsent += NUMBER.pack(number) + LENGTH.pack(len(arguments)) + arguments
        self._send()
        with suppress(OSError):  # the end of the process is noticed elsewhere
            self._numbers.sendall(b"".join(NUMBER.pack(number) for number, _ in calls))

    def _send(self) -> None:
        try:
            del self._unsent[: self._calls.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(self._calls, self._send)
        elif self._ended is not None:
            self._loop.remove_writer(self._calls)

    def take_back(self) -> set[int]:
        """Return the numbers of the calls in hand that have not started, and never will."""
        data = b""
        with suppress(OSError):
            while part := self._child_numbers.recv(_READ, socket.MSG_DONTWAIT):
                data += part
        return {number for (number,) in NUMBER.iter_unpack(data)}

    def answers(self) -> list[Answered]:
        """Return the answers that are there, in the order of the calls."""
        answers: list[Answered] = []
        while sum(self._receive(end, answers) for end in self._received):
            pass  # an answer that was sent before one of the other way may have come after the look for it
        answers.sort()
        return answers

    def _collect(self) -> None:
        """Call `answered` with the answers that are there."""
        if answers := self.answers():
            self._answered(answers)

    def _receive(self, end: socket.socket, answers: list[Answered]) -> bool:
        """Add the answers that came by `end` to `answers`; return True if there was anything."""
        try:
            data = end.recv(_READ, socket.MSG_DONTWAIT)
        except OSError:
            return False
        if data:
            self._received[end] += data
            self._unpack(end, answers)
        elif end is self._calls:  # the process closed it: its end follows
            self._loop.remove_reader(end)
        return bool(data)

    def _unpack(self, end: socket.socket, answers: list[Answered]) -> None:
        received, at = self._received[end], 0
        while len(received) >= at + LENGTH.size:
            (length,) = LENGTH.unpack_from(received, at)
            stop = at + LENGTH.size + length
            if len(received) < stop:
                break
            message = pickle.loads(memoryview(received)[at + LENGTH.size : stop])  # noqa: S301 - of our child
            at = stop
            if message == READY:
                self._ready.set()
            elif message[0] == MESSAGE:
                self.on_message(*message[1:])
            else:
                answers.append(_answered(*message))
        if at:
            self._received[end] = received[at:]

    def kill(self) -> None:
        """Kill the process without waiting; `died` follows."""
        self._killed = True
        if self._ended is not None and self._process.pid is not None:
            end_group(self._process.pid)
            self._process.kill()  # a process that has just started leads no group yet

    def close(self) -> None:
        """Kill the process and wait for its end; `died` is not called."""
        self._died = lambda: None
        self._answered = lambda _: None
        with self._lock:
            self.kill()
        if self._ended is not None:
            _readable(self._ended, _PATIENCE)
        self._end()

    def _end(self) -> None:
        """Release everything of the process, which has ended or never started."""
        self._collect()
        if self._ended is not None:
            self._loop.remove_reader(self._calls)
            self._loop.remove_writer(self._calls)
            self._loop.remove_reader(self._ended)
            self.kill()  # its group
            # multiprocessing alone would wait for a pipe that children of the process may hold.
            self._process.join(_PATIENCE)
            os.close(self._ended)
            self._ended = None
            with suppress(ValueError):  # it is not gone yet
                self._process.close()
        died, self._died = self._died, lambda: None
        died()
        self._ready.set()  # there is nothing to wait for any more
        for end in (self._calls, self._child_calls, self._numbers, self._child_numbers):
            end.close()


def packed(arguments: Any) -> bytes:
    """Return `arguments` as `Child.send` wants them. Raises any exception."""
    return pickle.dumps(arguments, pickle.HIGHEST_PROTOCOL)


def _answered(
    number: int,
    seconds: float,
    ended: float,
    raised: Any,
    result: Any,
    error: str | None,
    verdict: Verdict,
    delay: float | None,
) -> Answered:
    exception = None if raised is None else RaisedInProcess(*raised)
    return Answered(number, Answer(result, error, verdict, delay, exception), seconds, ended)


def _readable(descriptor: int, seconds: float) -> bool:
    """Wait up to `seconds` until `descriptor` is readable; return True if it is."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _end_of(process: multiprocessing.process.BaseProcess) -> int:
    """Return a descriptor that becomes readable when `process` ends."""
    try:
        return os.pidfd_open(process.pid or 0)
    except (AttributeError, OSError):  # not on this system
        return os.dup(process.sentinel)  # readable once it and all its forks have ended
