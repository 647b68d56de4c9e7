"""Programs that the checks run, and where they come from: Debian, PyPI, Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BUILD = ROOT / "build" / "deploy"

_STARTED = time.monotonic()
# The end of a program's output that a failure shows, in characters.
_SHOWN = 4000
# Checks run at once, and programs are installed and built one after the other: apt locks its lists, and go its files.
_PREPARING = threading.Lock()


class CheckFailed(Exception):
    """A file that is wrong, or a tool that cannot be had; the text says which."""


def say(text: str) -> None:
    """Print a line, with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED:6.1f} s  {text}", flush=True)


def run(*command: str | Path, input: str | None = None, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Run a program, and return what it writes to standard output. Raises CheckFailed with all of its output."""
    ended = subprocess.run(
        [*map(str, command)],
        input=input,
        env=os.environ | dict(env or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        shown = f"{ended.stdout}{ended.stderr}"[-_SHOWN:]
        raise CheckFailed(f"{' '.join(map(str, command))[:300]} ends with {ended.returncode}:\n{shown}")
    return ended.stdout


def tool(name: str) -> str:
    """Return the path of a program of this Python's environment."""
    return str(Path(sys.executable).parent / name)


def need(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Install Debian's `packages` unless all `programs` are there. Raises CheckFailed where that is impossible."""
    with _PREPARING:
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        missing = [name for name in programs if shutil.which(name, path=path) is None]
        if not missing:
            return
        if os.geteuid() or shutil.which("apt-get") is None:
            raise CheckFailed(
                f"{', '.join(missing)} missing; install as root on Debian: apt install {' '.join(packages)}"
            )
        say(f"installing {', '.join(packages)}")
        apt = ("apt-get", "-qq", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120")
        run(*apt, "update")
        run(*apt, "install", "--yes", "--no-install-recommends", *packages, env={"DEBIAN_FRONTEND": "noninteractive"})


def go_programs() -> Path:
    """Build the programs of `deploy/checks/go`, and return their folder. Raises CheckFailed."""
    if shutil.which("go") is None:
        raise CheckFailed("go is missing, which builds kustomize and the readers of Compose and KEDA: install Go 1.26")
    folder = BUILD / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    with _PREPARING:
        run("go", "build", "-o", f"{folder}/", ".", "sigs.k8s.io/kustomize/kustomize/v5", cwd=DEPLOY / "checks" / "go")
    return folder
