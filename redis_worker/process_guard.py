"""A temporary folder and the processes of an embedded server, which never outlive their parent.

The guard, a few lines of shell, leads a process group of its own, so that Ctrl-C, which goes to the terminal's
foreground group, keeps servers up for draining workers. It lives from before the folder is created until after its
removal, and waits for the end of a pipe. Only this process holds the other end, so the pipe ends with this process,
even on SIGKILL. Servers join the guard's group, so the guard can kill them without their ids: a restart needs no
message to the guard, and a recycled id is never hit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A group with a stopped member receives SIGHUP when its parent ends; the parent handles SIGINT and SIGTERM.
# The folder is removed first, because the last command kills the whole group, the guard included: without
# its folder the server can write no new file, and the loop covers a file written during the removal.
_GUARD = """
trap '' HUP INT TERM
read -r _
for attempt in 1 2 3 4 5; do rm -rf "$1" && break; done
kill -KILL 0
"""


class ProcessGuard:
    """A folder, and processes that end with this process."""

    def __init__(self, folder: Path) -> None:
        """Create the folder, which must not exist."""
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_ours = True
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "redis-worker-guard", str(folder)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            process_group=0,
        )
        _guards.add(self)
        self.folder.mkdir(mode=0o700)

    def spawn(self, command: Sequence[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start a process that ends with this one; its output goes to `log`. `options` are those of Popen.

        Raises OSError.
        """
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=self._shell.pid,
                **options,
            )
        self._processes.append(process)
        return process

    def dismiss(self) -> None:
        """Kill the processes and remove the folder; may be called again after an interruption.

        In a forked child it does nothing.
        """
        if not self._is_ours:
            return
        assert self._shell.stdin is not None
        if not self._shell.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                # A line, because the pipe does not end while a forked child holds a copy of it.
                self._shell.stdin.write(b"\n")
            self._shell.stdin.close()
        self._shell.wait()
        for process in self._processes:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)  # in case the guard was killed

    def _forget(self) -> None:
        """Close the pipe and drop the parent's processes, in a forked child."""
        self._is_ours = False
        for process in (self._shell, *self._processes):
            process.returncode = 0  # not ours to wait for
        assert self._shell.stdin is not None
        self._shell.stdin.close()


# Children of exec never inherit the pipe; children of fork alone (a process pool on Linux) do, and would
# keep the server alive after a kill of their parent.
_guards: weakref.WeakSet[ProcessGuard] = weakref.WeakSet()


def _forget_in_child() -> None:
    for guard in list(_guards):
        guard._forget()


os.register_at_fork(after_in_child=_forget_in_child)
