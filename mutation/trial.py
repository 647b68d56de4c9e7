"""The trial of a mutant: a copy of the project with the fault, and the tests that must notice it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mutation.mutants import ROOT, Mutant, WrongList

_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?)(?: - .*)?$", re.MULTILINE)
# Exit codes of pytest.
_PASSED, _TESTS_FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a trial."""

    mutant: Mutant
    dead: bool
    by: str
    """The first test that failed, or "time limit"; empty if the mutant is alive."""
    seconds: float


class Copy:
    """A copy of the project in `folder`, for one trial at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT, folder, ignore=_NOT_COPIED)
        self._changes = 0
        self._running: subprocess.Popen[str] | None = None

    def try_out(self, mutant: Mutant, limit: float) -> Verdict:
        """Apply `mutant`, run its tests for up to `limit` seconds, and take it back. Raises WrongList."""
        file = self.folder / "redis_worker" / mutant.file
        source, times = file.read_text(encoding="utf-8"), file.stat()
        file.write_text(mutant.applied_to(source), encoding="utf-8")
        self._changes += 1
        # Python compares times in whole seconds: compiled code of another text must not be taken for this one's.
        os.utime(file, (times.st_atime, times.st_mtime + 10 * self._changes))
        started = time.monotonic()
        try:
            code, output = self.run_tests(mutant.tests, limit)
        finally:
            file.write_text(source, encoding="utf-8")
            os.utime(file, (times.st_atime, times.st_mtime))
        seconds = time.monotonic() - started
        if code is None:
            return Verdict(mutant, True, "time limit", seconds)
        if code not in (_PASSED, _TESTS_FAILED):
            raise WrongList(f"{mutant.name}: its tests cannot be run:\n{output[-2000:]}")
        first = _FAILED.search(output)
        return Verdict(mutant, code == _TESTS_FAILED, first[1] if first else "", seconds)

    def run_tests(self, tests: Iterable[str], limit: float) -> tuple[int | None, str]:
        """Run `tests` until one fails. Returns pytest's exit code, None after `limit` seconds, and its output."""
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--servers=first", "-m", "not long"]
        self._running = process = subprocess.Popen(
            [*command, *tests],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            return _ended(process, limit)
        finally:
            if process.poll() is None:
                self.interrupt()
                process.communicate()

    def interrupt(self) -> None:
        """Kill the tests that run, with all that they have started in their group; may be called by another thread."""
        if self._running is not None and self._running.poll() is None:
            os.killpg(self._running.pid, signal.SIGKILL)


def _ended(process: subprocess.Popen[str], limit: float) -> tuple[int | None, str]:
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return None, ""
    return process.returncode, output
