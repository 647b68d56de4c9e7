"""A process of a supervisor's own, from outside: started, pinged, and ended when it hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from redis_worker.engine.process_group import end_group
from redis_worker.engine.running import RunningTask
from redis_worker.engine.streams import open_streams
from redis_worker.file.plan import Part
from redis_worker.supervisor.process.channel import FILE, FORMER_PATH, PATH, Channel
from redis_worker.supervisor.process.log_forwarding import form, levels, log_forwarded
from redis_worker.supervisor.process.transfer import packed
from redis_worker.supervisor.wiring import Wiring
from redis_worker.vocabulary.errors import (
    ConfigurationError,
    Disconnected,
    PartFailed,
    Refused,
    Unreachable,
)
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Consuming, PartState

logger = library_logger("redis_worker.supervisor")

_PING_EVERY = 1.0
# How long a process that was told to end at once may take, in seconds, before it is killed.
_LAST_WORDS = 4.0
# How long it may take to import what it needs, in seconds: its event loop does not turn meanwhile.
_START_PATIENCE = 120.0
_TICK = 0.01
_NAMES = {number.value: number.name for number in signal.Signals}
_KINDS = {kind.__name__: kind for kind in (ConfigurationError, Disconnected, Refused, Unreachable)}


class PartProcess:
    """One life of a part in a process of its own."""

    def __init__(self, part: Part, title: str, wiring: Wiring) -> None:
        """`title` is what it is called; `wiring` is told what it has done."""
        self._part = part
        self._title = title
        self._wiring = wiring
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._condition: PartState = "starting"
        self._consuming: list[Consuming] = []
        self._asked: str | None = None
        """What it was told last: to stop, or to cancel."""
        self._hung = False
        self._heard = False
        """Whether it was heard of since it was pinged last."""
        self._end: dict[str, Any] | None = None
        self._said_end = False

    @property
    def condition(self) -> PartState:
        """What the process says of itself."""
        return "stopping" if self._asked else self._condition

    @property
    def pid(self) -> int | None:
        """Its id."""
        return None if self._process is None else self._process.pid

    def consuming(self) -> list[Consuming]:
        """The queues that it claims from."""
        return self._consuming

    def running_tasks(self) -> list[RunningTask]:
        """Nothing that is known here."""
        return []

    def show(self) -> None:
        """Have it log what it runs."""
        if self._channel is not None:
            self._channel.send(do="show")

    def stop(self) -> None:
        """Tell it to stop."""
        self._tell(self._asked or "stop")

    def cancel(self) -> None:
        """Tell it to end at once; it is killed when it does not."""
        self._tell("cancel")
        asyncio.get_running_loop().call_later(_LAST_WORDS, self._kill)

    def kill(self) -> None:
        """Kill it at once, with all that it has started."""
        if self._process is not None and self._process.poll() is None:
            end_group(self._process.pid)

    async def run(self) -> None:
        """Run the process to its end. Raises PartFailed, or what the process said it had failed of."""
        open_streams()  # the process's end must not get the number of a standard stream
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _started(theirs)
            except OSError as error:
                ours.close()
                raise PartFailed(f"its process cannot be started: {error}") from error
        self._wiring.metrics.processes[self._title] = self._process.pid
        self._channel = channel = await Channel.over(ours)
        pinging = asyncio.create_task(self._ping(channel))
        try:
            channel.send(part=packed(self._part), title=self._title, levels=levels(), form=form())
            if self._asked:
                self._tell(self._asked)
            await self._listen(channel)
            await self._ended()
        finally:
            pinging.cancel()
            self._kill()
            self._process.wait()
            end_group(self._process.pid)  # what it has started, and did not end
            self._consuming = []
            self._wiring.retire(self._title)
            await channel.close()
        self._raise_failure()

    async def _ping(self, channel: Channel) -> None:
        """Ask how it is, again and again; kill it when it has not said so for too long."""
        silent = 0.0
        while True:
            limit = self._part.supervision.hang_timeout
            if self._condition == "starting":
                limit = max(limit, _START_PATIENCE)
            self._heard = False
            channel.send(do="ping")
            await asyncio.sleep(_PING_EVERY)
            if self._process is not None and self._process.poll() is not None:
                await asyncio.sleep(_PING_EVERY)  # its last words are still to be read
                channel.abort()  # a process of its own holds the line open
                return
            # Counted by pings: while the supervisor itself stood still, nobody asked, nor read what was answered.
            silent = 0.0 if self._heard else silent + _PING_EVERY
            if silent > max(limit, _PING_EVERY):
                self._hung = True
                self._kill()
                return

    async def _listen(self, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            self._heard = True
            if "log" in message:
                log_forwarded(message["log"])
            elif "end" in message:
                self._said_end, self._end = True, message["end"]
            else:
                self._condition = message["condition"]
                self._consuming = [Consuming(*values) for values in message["consuming"]]
                self._wiring.absorb(self._title, message["counters"], message["metrics"])

    async def _ended(self) -> None:
        """Wait for the process to end; its end of the line is closed."""
        assert self._process is not None
        end = time.monotonic() + _LAST_WORDS
        while self._process.poll() is None:
            if time.monotonic() > end:
                self._kill()
            await asyncio.sleep(_TICK)

    def _raise_failure(self) -> None:
        assert self._process is not None
        code = self._process.returncode
        if self._hung:
            raise PartFailed(
                f"its process {self.pid} has not answered for {self._part.supervision.hang_timeout:g} s and was killed"
            )
        if not self._said_end and self._asked != "cancel":
            how = f"killed by {_NAMES.get(-code, -code)}" if code < 0 else f"exit code {code}"
            raise PartFailed(f"its process {self.pid} has died ({how})")
        if self._end is not None:
            raise _KINDS.get(self._end["kind"], PartFailed)(self._end["text"])

    def _tell(self, what: str) -> None:
        self._asked = what
        if self._channel is not None:
            self._channel.send(do=what)

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def _started(end: socket.socket) -> subprocess.Popen[bytes]:
    # It finds modules where this process finds them, and has no say in where: -P.
    places = [place for place in sys.path if isinstance(place, str) and place]  # of others imports take no notice
    environment = os.environ | {FILE: str(end.fileno()), PATH: os.pathsep.join(places)}
    if PATH in os.environ:
        environment[FORMER_PATH] = os.environ[PATH]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "redis_worker.supervisor.process.child"],
        env=environment,
        pass_fds=(end.fileno(),),
        stdin=subprocess.DEVNULL,
        # Ctrl-C reaches the supervisor only, which says what to do.
        start_new_session=True,
    )
