"""A part's process as the supervisor sees it: started, pinged, and killed when it hangs."""

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
from redis_worker.supervisor.process.channel import CHANNEL_FD, FORMER_PYTHONPATH, PYTHONPATH, Channel
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
# The time limit of a cancelled process, in seconds, before it is killed.
_CANCEL_TIMEOUT = 4.0
# The time limit for its imports, in seconds: its event loop does not run meanwhile.
_IMPORT_TIMEOUT = 120.0
_TICK = 0.01
_NAMES = {number.value: number.name for number in signal.Signals}
_KINDS = {kind.__name__: kind for kind in (ConfigurationError, Disconnected, Refused, Unreachable)}


class PartProcess:
    """One run of a part in a separate process."""

    def __init__(self, part: Part, title: str, wiring: Wiring) -> None:
        """`title` is its name in logs and metrics; `wiring` receives its counters and metrics."""
        self._part = part
        self._title = title
        self._metrics = wiring.metrics
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._condition: PartState = "starting"
        self._consuming: list[Consuming] = []
        self._requested: str | None = None
        """The last request sent: "stop" or "cancel"."""
        self._hung = False
        self._answered = False
        """True if a message has arrived since the last ping."""
        self._end: dict[str, Any] | None = None
        self._end_reported = False

    @property
    def condition(self) -> PartState:
        """The condition that the process reported, or "stopping" after a request."""
        return "stopping" if self._requested else self._condition

    @property
    def pid(self) -> int | None:
        """The process id; None before the start."""
        return None if self._process is None else self._process.pid

    def consuming(self) -> list[Consuming]:
        """Return the queues that the process claims from."""
        return self._consuming

    def running_tasks(self) -> list[RunningTask]:
        """Return no task: they are unknown here."""
        return []

    def show(self) -> None:
        """Request that the process log its running tasks."""
        if self._channel is not None:
            self._channel.send(do="show")

    def stop(self) -> None:
        """Request a graceful stop."""
        self._request(self._requested or "stop")

    def cancel(self) -> None:
        """Request a stop at once; kill the process if it does not end."""
        self._request("cancel")
        asyncio.get_running_loop().call_later(_CANCEL_TIMEOUT, self._kill)

    def kill(self) -> None:
        """Kill it at once, with all that it has started."""
        if self._process is not None and self._process.poll() is None:
            end_group(self._process.pid)

    async def run(self) -> None:
        """Run the process to its end. Raises PartFailed, or the error that the process reported."""
        open_streams()  # the process's end must not get the number of a standard stream
        own_end, child_end = socket.socketpair()
        with child_end:
            try:
                self._process = _spawn(child_end)
            except OSError as error:
                own_end.close()
                raise PartFailed(f"its process cannot be started: {error}") from error
        self._metrics.processes[self._title] = self._process.pid
        self._channel = channel = await Channel.over(own_end)
        pinging = asyncio.create_task(self._ping(channel))
        try:
            channel.send(part=packed(self._part), title=self._title, levels=levels(), form=form())
            if self._requested:
                self._request(self._requested)
            await self._listen(channel)
            await self._ended()
        finally:
            pinging.cancel()
            self._kill()
            self._process.wait()
            end_group(self._process.pid)  # processes that it started and left
            self._consuming = []
            self._metrics.retire(self._title)
            await channel.close()
        self._raise_failure()

    async def _ping(self, channel: Channel) -> None:
        """Ping the process, and kill it when it has not answered for too long."""
        silent = 0.0
        while True:
            limit = self._part.supervision.hang_timeout
            if self._condition == "starting":
                limit = max(limit, _IMPORT_TIMEOUT)
            self._answered = False
            channel.send(do="ping")
            await asyncio.sleep(_PING_EVERY)
            if self._process is not None and self._process.poll() is not None:
                await asyncio.sleep(_PING_EVERY)  # its last messages are still unread
                channel.abort()  # a process that it started holds the channel open
                return
            # Counted in pings: while the supervisor itself was stopped, it neither sent pings nor read answers.
            silent = 0.0 if self._answered else silent + _PING_EVERY
            if silent > max(limit, _PING_EVERY):
                self._hung = True
                self._kill()
                return

    async def _listen(self, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            self._answered = True
            if "log" in message:
                log_forwarded(message["log"])
            elif "end" in message:
                self._end_reported, self._end = True, message["end"]
            else:
                self._condition = message["condition"]
                self._consuming = [Consuming.of(values) for values in message["consuming"]]
                self._metrics.absorb(self._title, message["metrics"])

    async def _ended(self) -> None:
        """Wait for the process to end; its end of the channel is closed."""
        assert self._process is not None
        end = time.monotonic() + _CANCEL_TIMEOUT
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
        if not self._end_reported and self._requested != "cancel":
            how = f"killed by {_NAMES.get(-code, -code)}" if code < 0 else f"exit code {code}"
            raise PartFailed(f"its process {self.pid} has died ({how})")
        if self._end is not None:
            raise _KINDS.get(self._end["kind"], PartFailed)(self._end["text"])

    def _request(self, request: str) -> None:
        self._requested = request
        if self._channel is not None:
            self._channel.send(do=request)

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def _spawn(end: socket.socket) -> subprocess.Popen[bytes]:
    # It finds modules where this process does; -P keeps its working directory out.
    places = [place for place in sys.path if isinstance(place, str) and place]  # imports ignore other entries
    environment = os.environ | {CHANNEL_FD: str(end.fileno()), PYTHONPATH: os.pathsep.join(places)}
    if PYTHONPATH in os.environ:
        environment[FORMER_PYTHONPATH] = os.environ[PYTHONPATH]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "redis_worker.supervisor.process.child"],
        env=environment,
        pass_fds=(end.fileno(),),
        stdin=subprocess.DEVNULL,
        # Ctrl-C reaches only the supervisor, which stops the process.
        start_new_session=True,
    )
