"""`download` writes nothing that a worker runs, or takes for its settings, and reaches no farther than it may."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_worker import WorkerPool
from redis_worker.builtin.download import DOWNLOADED, download
from redis_worker.vocabulary.errors import ConfigurationError
from tests.support import CommandProcess, Queue
from tests.unit.test_download import BODY, Server, files, serving

EVIL = b"open('attacked', 'w').close()\n"


@pytest.fixture
def web() -> Iterator[Server]:
    with serving() as web:
        yield web


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("REDIS_WORKER_DOWNLOAD_DIR", raising=False)
    monkeypatch.delenv("REDIS_WORKER_DOWNLOAD_PRIVATE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pool() -> WorkerPool:
    return WorkerPool("redis://localhost", "in", "out", "list", "download")


class Attack:
    """A worker with two processes, before and after somebody has pushed downloads."""

    def __init__(self, queue: Queue, here: Path, *arguments: str) -> None:
        self._queue, self._here = queue, here
        keys = ("--input", queue.keys.waiting, "--output", queue.keys.output, "--processor", "download")
        self._arguments = ("run", *keys, "--burst", "-w", "2", *arguments)

    async def work(self, url: str, env: dict[str, str] | None = None) -> str:
        root = str(Path(__file__).parent.parent)
        process = CommandProcess(*self._arguments, "--url", url, cwd=self._here, env={"PYTHONPATH": root} | (env or {}))
        try:
            assert await process.ended() == 0, process.log
            return process.log
        finally:
            process.close()


async def test_a_queue_writer_cannot_have_code_run(server: Any, queue: Queue, web: Server, here: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    web.pages["/env"] = lambda h: h.send(head, b"PYTHONPATH=.\n")
    web.pages["/code"] = lambda h: h.send(head, EVIL)
    attack = Attack(queue, here)
    paths = {".env": "/env", "sitecustomize.py": "/code", "a/.git/config": "/env", "usercustomize.py": "/code"}
    await queue.push(*({"id": path, "task": [web.url(url), path]} for path, url in paths.items()))
    await attack.work(server.url)
    results = await queue.results()
    assert {path for path, result in results.items() if result["status"] == "success"} == {
        "sitecustomize.py",
        "usercustomize.py",
    }
    assert files(here) == ["downloads/sitecustomize.py", "downloads/usercustomize.py"]
    await queue.push({"id": "again", "task": [web.url("/file"), "x"]})
    log = await attack.work(server.url)
    assert "holds code or settings (sitecustomize.py, usercustomize.py)" in log
    assert files(here) == ["downloads/sitecustomize.py", "downloads/usercustomize.py", "downloads/x"]


@pytest.mark.parametrize("by", ["option", "environment", "file"])
async def test_another_directory(server: Any, queue: Queue, web: Server, here: Path, by: str) -> None:
    arguments, env = (), {}
    if by == "option":
        arguments, env = ("--download-dir", "else/where"), {"REDIS_WORKER_DOWNLOAD_DIR": "not-here"}
    elif by == "environment":
        env = {"REDIS_WORKER_DOWNLOAD_DIR": "else/where"}
    else:
        (here / ".env").write_text("REDIS_WORKER_DOWNLOAD_DIR=else/where\n")
    await queue.push({"id": 1, "task": [web.url("/file"), "x"]})
    await Attack(queue, here, *arguments).work(server.url, env)
    assert (await queue.result(1)) == {"status": "success", "result": DOWNLOADED}
    assert (here / "else/where/x").read_bytes() == BODY


DOTTED = [".env", ".a/b", "a/.git/b", "a/.b/c", "./.x", "a/../.x", "...", "link/x", "link", "..x"]


@pytest.mark.parametrize("path", DOTTED)
def test_no_name_begins_with_a_dot(web: Server, here: Path, path: str) -> None:
    (here / "downloads").mkdir()
    (here / "downloads/link").symlink_to(".hidden")
    with pytest.raises(ValueError, match="a name that begins with a dot"):
        download([web.url("/file"), path])
    assert web.requests == []
    assert os.listdir(here / "downloads") == ["link"]


@pytest.mark.parametrize("path", ["./x", "a/../x", "a.b", "a./x", "x.", "../downloads/x"])
def test_dots_elsewhere_are_fine(web: Server, here: Path, path: str) -> None:
    assert download([web.url("/file"), path]) == DOWNLOADED


def test_a_directory_below_a_hidden_one_can_be_chosen(web: Server, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_DIR", ".cache/files")
    assert download([web.url("/file"), "x"]) == DOWNLOADED
    assert files(here) == [".cache/files/x"]


SETTINGS = ["a.py", ".env", "pyproject.toml", "any.TOML", "setup.cfg", "x.pth", "m.so", "compose.yml", "Makefile"]


@pytest.mark.parametrize("name", [*SETTINGS, "data.json", "report.csv", "python", "a.pyx2"])
def test_a_pool_warns_of_a_directory_with_code_or_settings(
    here: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (here / "downloads").mkdir()
    (here / "downloads" / name).touch()
    pool()
    assert [name in record.getMessage() for record in caplog.records] == [True] * (name in SETTINGS)


def test_a_pool_warns_of_a_directory_that_modules_are_imported_from(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(here)])
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_DIR", ".")
    pool()
    assert "is searched for Python modules" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_a_pool_without_a_directory_yet_says_nothing_and_makes_none(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool()
    assert caplog.records == []
    assert os.listdir(here) == []


@pytest.mark.parametrize("name", ["MAX_BYTES", "TIMEOUT", "PRIVATE"])
def test_a_wrong_setting_ends_the_pool_and_is_not_quoted(
    here: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"REDIS_WORKER_DOWNLOAD_{name}", "hunter2")
    with pytest.raises(ConfigurationError, match=f"REDIS_WORKER_DOWNLOAD_{name} should be") as caught:
        pool()
    assert "hunter2" not in str(caught.value)


PRIVATE = [
    *("127.0.0.1", "localhost", "127.1", "0.0.0.0", "[::1]", "[::]", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
    *("100.64.0.1", "[fd00::1]", "[::ffff:127.0.0.1]", "[64:ff9b::10.0.0.1]", "[2002:7f00:1::]", "224.0.0.1"),
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_can_be_denied(web: Server, here: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_PRIVATE", "deny")
    with pytest.raises(ValueError, match="has a loopback or private address"):
        download([web.url("/file", host=host), "x"])
    assert web.requests == []
    assert files(here) == []


def test_private_addresses_are_denied_to_redirects_and_names(
    web: Server, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host outside sends to one inside; a name has one address outside and one inside."""
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_PRIVATE", "deny")
    resolve, connect = socket.getaddrinfo, socket.socket.connect
    outside, inside = (
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, web.server_port)) for host in ("1.2.3.4", "127.0.0.1")
    )
    names = {"outside.test": [outside], "both.test": [outside, inside]}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **o: names.get(host) or resolve(host, *a, **o))
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: connect(self, ("127.0.0.1", address[1])))
    web.pages["/away"] = lambda h: h.redirect(web.url("/file"))
    assert download([web.url("/file", host="outside.test"), "x"]) == DOWNLOADED
    for host, path in (("outside.test", "/away"), ("both.test", "/file")):
        with pytest.raises(ValueError, match="has a loopback or private address"):
            download([web.url(path, host=host), "y"])
    assert [path for path, _ in web.requests] == ["/file", "/away"]
    assert files(here) == ["downloads/x"]
