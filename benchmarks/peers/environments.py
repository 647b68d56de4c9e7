"""An environment for each peer under build/peers/, made on first use by the toolchain of its language."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import ROOT
from benchmarks.peers.catalog import Peer
from redis_worker import __version__

FOLDER = ROOT / "build" / "peers"
_HERE = Path(__file__).parent
_TIMEOUT = 300.0


class NotInstalled(Exception):
    """Raised if an environment cannot be made; the text is the reason."""


class Environment:
    """The environment of a peer, and the commands that run in it."""

    def __init__(self, peer: Peer) -> None:
        """Raises NotInstalled."""
        self.peer = peer
        self.folder = FOLDER / peer.name
        self.bin = self.folder / "bin"
        if not peer.packages:
            self.bin = Path(sys.executable).parent
        elif peer.toolchain == "python":
            self._make_python()
        elif peer.toolchain == "node":
            self._make_node()
        else:
            self._make_go()

    @property
    def program(self) -> list[str]:
        """The command of the peer's own program."""
        if self.peer.toolchain == "go":
            return [str(self.folder / "peer")]
        if self.peer.toolchain == "node":
            return ["node", str(_HERE / f"{self.peer.name}.js")]
        return [str(self.bin / "python"), "-m", "benchmarks.peers.common", self.peer.name]

    def command(self, text: str, url: str) -> list[str]:
        """Return the command of a worker."""
        values = {"{bin}": str(self.bin), "{url}": url}
        words = [self.program if word == "{program}" else [word] for word in shlex.split(text)]
        return [re.sub(r"\{\w+\}", lambda found: values[found[0]], word) for part in words for word in part]

    def variables(self, url: str, started: Path) -> dict[str, str]:
        """Return the environment variables of its processes."""
        # Settings of the user's own workers must not affect the measurement.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "CELERY_"))}
        own = {"PEER_URL": url, "PEER_STARTED": str(started), "PYTHONPATH": str(ROOT)}
        return kept | own | {"NODE_PATH": str(self.folder / "node_modules")} | dict(self.peer.variables)

    def version(self) -> str:
        """Return the version of the worker."""
        if not self.peer.packages:
            return __version__
        package = self.peer.packages[0]
        if self.peer.toolchain == "node":
            manifest = self.folder / "node_modules" / package / "package.json"
            return str(json.loads(manifest.read_text())["version"])
        if self.peer.toolchain == "go":
            found = re.search(rf"{re.escape(package)} v(\S+)", (self.folder / "go.mod").read_text())
            return found[1] if found else "?"
        code = f"import importlib.metadata as found; print(found.version({package!r}))"
        return self._run([str(self.bin / "python"), "-c", code]).strip()

    def _make_python(self) -> None:
        if (self.folder / "installed").exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self._run([sys.executable, "-m", "venv", str(self.folder)])
        pip = (str(self.bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        self._run([*pip, *self.peer.packages])
        (self.folder / "installed").touch()

    def _make_node(self) -> None:
        if not shutil.which("npm"):
            raise NotInstalled("npm is not installed")
        if not (self.folder / "node_modules").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            options = ("--silent", "--no-fund", "--no-audit")
            self._run(["npm", "install", *options, "--prefix", str(self.folder), *self.peer.packages])

    def _make_go(self) -> None:
        if not shutil.which("go"):
            raise NotInstalled("go is not installed")
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_HERE / f"{self.peer.name}.go", self.folder / "main.go")
        if not (self.folder / "go.mod").exists():
            self._run(["go", "mod", "init", "peer"], self.folder)
            self._run(["go", "get", *(f"{package}@latest" for package in self.peer.packages)], self.folder)
        self._run(["go", "build", "-o", "peer", "."], self.folder)

    def _run(self, command: list[str], folder: Path = ROOT) -> str:
        try:
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotInstalled(str(error)) from None
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or [f"{command[0]} ended with status {ended.returncode}"]
            raise NotInstalled(lines[-1])
        return ended.stdout
