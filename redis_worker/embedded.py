"""A private Redis-compatible server for demos, tests and ``--embedded``; it never outlives its parent."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from redis_worker.process_guard import ProcessGuard
from redis_worker.server_programs import find_server
from redis_worker.vocabulary.errors import ConfigurationError, RedisWorkerError, Unreachable

HOST = "127.0.0.1"
START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0

# Below the ephemeral ports of Linux (32768) and macOS (49152): during a restart, a reconnecting client
# must not get this port as its local port, because on loopback it would connect to itself.
PORTS = range(20_000, 32_768)


class EmbeddedServer:
    """A server on 127.0.0.1 with a temporary folder; both end with the parent process.

    With `persistent`, the server syncs every write to disk before the reply, so data survive `restart`;
    otherwise it keeps nothing. `options` are passed to the server, such as ``("--maxmemory", "100mb")``.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        persistent: bool = False,
        port: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.binary = find_server() if binary is None else binary
        self.folder = Path(tempfile.gettempdir()) / f"redis-worker-{os.urandom(8).hex()}"
        self._durability = ("--appendonly", "yes", "--appendfsync", "always") if persistent else ()
        self._options = tuple(options)
        self._fixed_port = self._port = port
        self._guard: ProcessGuard | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise RedisWorkerError("the embedded server has no port before it starts")
        return self._port

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server, for tests that stop or kill it."""
        if self._server is None:
            raise RedisWorkerError("the embedded server is not running")
        return self._server.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it answers."""
        if self._guard is not None:
            raise RedisWorkerError("the embedded server is already started")
        try:
            self._guard = ProcessGuard(self.folder)
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
        self._end_server(signal.SIGTERM)
        self._guard.dismiss()
        self._server = self._guard = None

    def restart(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server with signal `by` and start it again on the same port, in the same folder."""
        if self._guard is None:
            raise RedisWorkerError("the embedded server is not started")
        self._end_server(by)
        # Another process may hold the port for a moment.
        self._start_server([self.port] * 20)

    def _start_server(self, ports: Sequence[int]) -> None:
        """Start the server on the first of `ports` that it can bind: testing a port beforehand is a race."""
        for port in ports:
            self._port = port
            self._server = self._spawn(port)
            if self._comes_up(self._server, port):
                return
            time.sleep(0.05)
        raise ConfigurationError(f"port {self.port} of {HOST} is not to be had:{self._last_lines()}")

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        assert self._guard is not None
        command = [
            *(str(self.binary), "--save", "", *self._durability, *self._options),
            # Last, so that `options` cannot override it: the server stays private, and its log readable.
            *("--bind", HOST, "--port", str(port), "--protected-mode", "yes"),
            *("--dir", str(self.folder), "--daemonize", "no", "--loglevel", "notice", "--logfile", ""),
        ]
        try:
            return self._guard.spawn(command, self._log)
        except OSError as error:
            raise ConfigurationError(f"the embedded server cannot be started: {error}") from error

    def _comes_up(self, server: subprocess.Popen[bytes], port: int) -> bool:
        """Return True when the server answers, False if it cannot bind the port."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            status = server.poll()  # before reading the log, so that it is complete
            log = self._log.read_bytes()
            if status is not None:
                if b"bind: " in log:
                    return False
                raise ConfigurationError(f"{self.binary} ended with status {status}:{self._last_lines()}")
            # The log proves that the port is ours: an answer alone might come from another server.
            if b"eady to accept connections" in log and _answers(port):
                return True
            time.sleep(0.005)
        raise Unreachable(
            f"{self.binary} did not answer on {HOST}:{port} within {START_TIMEOUT:g} s:{self._last_lines()}"
        )

    def _end_server(self, by: signal.Signals) -> None:
        if self._server is None:
            return
        self._server.send_signal(by)
        self._server.send_signal(signal.SIGCONT)  # a test may have stopped it; a stopped process handles no SIGTERM
        try:
            self._server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _last_lines(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "".join(f"\n  {line}" for line in lines[-8:] if line) or " it logged nothing"


def _answers(port: int) -> bool:
    """Return True if the server replies to PING; -NOAUTH counts too, if the options require a password."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    return False
