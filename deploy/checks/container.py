"""A container without an engine: namespaces, a read-only root file system, a user without rights, process 1."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from deploy.checks.running import CheckFailed

# As an engine with `--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges`. The network is that of
# this machine. The shells are hidden: the image must not need one.
_ENTER = """
set -e
hostname {name}
mount -t proc proc {root}/proc
mount --rbind /dev {root}/dev
mount -t tmpfs -o mode=1777 tmpfs {root}/tmp
mount -t tmpfs tmpfs {root}/run
mkdir -p {root}/run/secrets
cp {folder}/secrets/* {root}/run/secrets/ 2>/dev/null || true
mount --bind {folder}/hosts {root}/etc/hosts
[ -z {app} ] || mount --bind {app} {root}/app
for shell in dash bash; do [ ! -e {root}/usr/bin/$shell ] || mount --bind /dev/null {root}/usr/bin/$shell; done
mount -o remount,bind,ro {root}
exec env -i {env} /usr/bin/setpriv --no-new-privs /usr/sbin/chroot --userspec={user} --groups= {root} {command}
"""


class Container:
    """A container that runs until its command ends, or the block does."""

    def __init__(
        self,
        root: Path,
        settings: Mapping[str, Any],
        *,
        entrypoint: Sequence[str] | None = None,
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        app: Path | None = None,
        name: str = "container",
    ) -> None:
        """`settings` are those of the image; `app` is a folder that is seen as /app."""
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "hosts").write_text("127.0.0.1 localhost redis\n")
        (folder / "secrets").mkdir()
        for secret, value in (secrets or {}).items():
            (folder / "secrets" / secret).write_text(value)
        Path(root, "etc/hosts").touch()
        self._root, self._user = root, str(settings["User"])
        self._env = dict(pair.split("=", 1) for pair in settings["Env"]) | dict(env or {})
        arguments = [*(settings["Entrypoint"] if entrypoint is None else entrypoint), *command]
        script = _ENTER.format(
            name=shlex.quote(name),
            root=shlex.quote(str(root)),
            folder=shlex.quote(str(folder)),
            app=shlex.quote(str(app or "")),
            env=shlex.join(f"{key}={value}" for key, value in self._env.items()),
            user=self._user,
            command=shlex.join(["env", "--chdir", settings["WorkingDir"], *arguments]),
        )
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self._process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "sh", "-c", script],
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    @property
    def log(self) -> str:
        """The output so far."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode()

    @property
    def process_1(self) -> int:
        """The number of its first process, outside; 0 before it exists."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int((children.read_text().split() or ["0"])[0])

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as `docker exec` and HEALTHCHECK do."""
        user, _, group = self._user.partition(":")
        enter = ("nsenter", "--target", str(self.process_1), "--mount", "--pid", "--uts", "--root", "--wd")
        as_user = ("--setuid", user, "--setgid", group or user)
        variables = [f"{key}={value}" for key, value in self._env.items()]
        return subprocess.run(
            [*enter, *as_user, "/usr/bin/env", "-i", *variables, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
        """Wait, and return the seconds. Raises CheckFailed with the log if it does not come, or the container ends."""
        begun = time.monotonic()
        while not condition():
            if self._process.poll() is not None:
                raise CheckFailed(f"a container ended with {self._process.returncode}, before {what}:\n{self.log}")
            if time.monotonic() - begun > seconds:
                raise CheckFailed(f"not in {seconds:g} s: {what}. The container writes:\n{self.log}")
            time.sleep(0.05)
        return time.monotonic() - begun

    def healthy(self, test: Sequence[str]) -> bool:
        """Return True if the test of a HEALTHCHECK, ["CMD", …], succeeds."""
        return bool(self.process_1) and self.execute(*test[1:]).returncode == 0

    def stop(self, grace: float) -> tuple[int, float]:
        """Send SIGTERM, and return the exit code and the seconds until then. Raises CheckFailed after `grace`."""
        begun = time.monotonic()
        os.kill(self.process_1, signal.SIGTERM)
        return self.ended(grace), time.monotonic() - begun

    def ended(self, seconds: float) -> int:
        """Wait for the end, and return the exit code. Raises CheckFailed if it does not come."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"a container does not end in {seconds:g} s:\n{self.log}") from None
