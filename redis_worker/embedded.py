"""A private Redis-compatible server for demos, tests and ``--embedded``, and the base of such servers.

They never outlive their parent.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from redis_worker.process_guard import ProcessGuard
from redis_worker.server_programs import find_server
from redis_worker.vocabulary.errors import ConfigurationError, RedisWorkerError, Unreachable

HOST = "127.0.0.1"

# Below the ephemeral ports of Linux (32768) and macOS (49152): during a restart, a reconnecting client
# must not get this port as its local port, because on loopback it would connect to itself.
PORTS = range(20_000, 32_768)


class EmbeddedProgram(ABC):
    """A server program on 127.0.0.1 with a temporary folder; both end with the parent process."""

    title: ClassVar[str]
    """Its name in errors."""
    start_timeout = 20.0
    stop_timeout = 5.0
    _stop_signal = signal.SIGTERM
    _last_signal = signal.SIGKILL
    """Sent after `stop_timeout`."""
    _restarts = 20
    """Attempts of a restart: another process may hold the port for a moment."""
    _taken: ClassVar[tuple[bytes, ...]]
    """Texts in the log of a program that could not have its port yet."""

    def __init__(self, port: int | None = None) -> None:
        """`port` is the only port to use; by default a free one."""
        self.folder = Path(tempfile.gettempdir()) / f"redis-worker-{os.urandom(8).hex()}"
        self._fixed_port = self._port = port
        self._guard: ProcessGuard | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise RedisWorkerError(f"{self.title} has no port before it starts")
        return self._port

    @property
    def pid(self) -> int:
        """Process id of the server, for tests that stop or kill it."""
        if self._server is None:
            raise RedisWorkerError(f"{self.title} is not running")
        return self._server.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it answers."""
        if self._guard is not None:
            raise RedisWorkerError(f"{self.title} is already started")
        try:
            self._guard = ProcessGuard(self.folder)
            self._prepare()
            wanted = self._fixed_port
            self._start_server(random.sample(PORTS, 20) if wanted is None else [wanted])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and remove its folder; a second call does nothing."""
        # References are cleared last: a call interrupted by Ctrl-C can be repeated.
        if self._guard is None:
            return
        self._end_server(self._stop_signal)
        self._guard.dismiss()
        self._server = self._guard = None

    def restart(self, by: signal.Signals | None = None) -> None:
        """Stop the server with signal `by` and start it again on the same port, in the same folder."""
        if self._guard is None:
            raise RedisWorkerError(f"{self.title} is not started")
        self._end_server(self._stop_signal if by is None else by)
        self._start_server([self.port] * self._restarts)

    def _prepare(self) -> None:  # noqa: B027 - a server of Redis needs none
        """Prepare the folder, before the first start."""

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """Return the command that starts the server."""

    @abstractmethod
    def _answers(self, log: bytes, port: int) -> bool:
        """Return True if the server is ready, by its log and at its port."""

    def _start_server(self, ports: Sequence[int]) -> None:
        """Start the server on the first of `ports` that it can bind: testing a port beforehand is a race."""
        for port in ports:
            self._port = port
            self._server = self._spawn(self._command(port))
            if self._comes_up(self._server, port):
                return
            time.sleep(0.05)
        raise ConfigurationError(f"port {self.port} of {HOST} is not to be had:{self._last_lines()}")

    def _spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        assert self._guard is not None
        try:
            return self._guard.spawn(command, self._log, **options)
        except OSError as error:
            raise ConfigurationError(f"{self.title} cannot be started: {error}") from error

    def _comes_up(self, server: subprocess.Popen[bytes], port: int) -> bool:
        """Return True when the server answers, False if its port, or its memory, is not free yet."""
        program = self._command(port)[0]
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            status = server.poll()  # before reading the log, so that it is complete
            log = self._log.read_bytes()
            if status is not None:
                if any(text in log for text in self._taken):
                    return False
                raise ConfigurationError(f"{program} ended with status {status}:{self._last_lines()}")
            if self._answers(log, port):
                return True
            time.sleep(0.005)
        raise Unreachable(
            f"{program} did not answer on {HOST}:{port} within {self.start_timeout:g} s:{self._last_lines()}"
        )

    def _end_server(self, by: signal.Signals) -> None:
        if self._server is None:
            return
        self._server.send_signal(by)
        self._server.send_signal(signal.SIGCONT)  # a test may have stopped it; a stopped process handles no SIGTERM
        try:
            self._server.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            self._server.send_signal(self._last_signal)
            self._server.wait()

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _last_lines(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "".join(f"\n  {line}" for line in lines[-8:] if line) or " it logged nothing"


class EmbeddedServer(EmbeddedProgram):
    """A Redis-compatible server on 127.0.0.1 with a temporary folder; both end with the parent process.

    With `persistent`, the server syncs every write to disk before the reply, so data survive `restart`;
    otherwise it keeps nothing. `options` are passed to the server, such as ``("--maxmemory", "100mb")``.
    """

    title = "the embedded server"
    _taken = (b"bind: ",)

    def __init__(
        self,
        binary: Path | None = None,
        *,
        persistent: bool = False,
        port: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(port)
        self.binary = find_server() if binary is None else binary
        self._durability = ("--appendonly", "yes", "--appendfsync", "always") if persistent else ()
        self._options = tuple(options)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def _command(self, port: int) -> list[str]:
        return [
            *(str(self.binary), "--save", "", *self._durability, *self._options),
            # Last, so that `options` cannot override it: the server stays private, and its log readable.
            *("--bind", HOST, "--port", str(port), "--protected-mode", "yes"),
            *("--dir", str(self.folder), "--daemonize", "no", "--loglevel", "notice", "--logfile", ""),
        ]

    def _answers(self, log: bytes, port: int) -> bool:
        """Return True if the server replies to PING; -NOAUTH counts too, if the options require a password."""
        # The log proves that the port is ours: an answer alone might come from another server.
        if b"eady to accept connections" not in log:
            return False
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False
