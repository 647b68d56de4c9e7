"""`Type=notify`: what systemd hears of a worker and of a supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redis_worker.embedded import EmbeddedServer
from tests.support import CommandProcess, Queue, WorkerProcess, wait_until


class Listener:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)

    def has(self, message: str) -> bool:
        """Return True if `message` was received since the start, or since `forget`."""
        try:
            while True:
                self.heard.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return message in self.heard

    def forget(self) -> None:
        self.has("")
        self.heard.clear()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request: pytest.FixtureRequest) -> Iterator[Listener]:
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/notify" if request.param == "a path" else f"@redis-worker-{os.getpid()}"
        listener = Listener(address)
        yield listener
        listener.close()


async def test_a_worker_is_ready_pings_and_stops(
    manager: Listener, worker: Callable[..., WorkerProcess], queue: Queue, tmp_path: Path
) -> None:
    process = worker("--concurrency", "1", processor="tests.processors:gate", env=watched(manager))
    await wait_until(lambda: manager.has("READY=1"), "READY")
    assert not manager.has("STOPPING=1")
    manager.forget()
    await wait_until(lambda: manager.has("WATCHDOG=1"), "a ping")
    process.freeze()
    manager.forget()
    await asyncio.sleep(0.3)  # six intervals
    assert not manager.has("WATCHDOG=1")
    process.signal(signal.SIGCONT)
    await queue.push_tasks([[str(tmp_path)]])
    await wait_until((tmp_path / "running").exists, "the task to run")
    process.signal(signal.SIGTERM)
    await wait_until(lambda: manager.has("STOPPING=1"), "STOPPING")
    manager.forget()
    await wait_until(lambda: manager.has("WATCHDOG=1"), "a ping while the last task runs")
    (tmp_path / "open").touch()
    assert await process.ended() == 0


async def test_a_supervisor_is_ready_once_its_parts_run(
    manager: Listener, queue: Queue, server: EmbeddedServer, tmp_path: Path
) -> None:
    file = tmp_path / "workers.toml"
    keys = queue.keys
    file.write_text(
        f'[redis]\nurl = "{server.url}"\n[pools.adding]\ninput = "{keys.waiting}"\noutput = "{keys.output}"\n'
        'processor = "sum"\nprocesses = 1\n'
    )
    process = CommandProcess("serve", str(file), env=watched(manager))
    try:
        await wait_until(lambda: manager.has("READY=1"), "READY")
        await queue.push_tasks([[1, 2]])
        await wait_until(lambda: queue.answered(1), "the result")
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert manager.has("STOPPING=1")
    finally:
        process.close()


async def test_a_worker_that_cannot_start_is_never_ready(
    manager: Listener, worker: Callable[..., WorkerProcess]
) -> None:
    process = worker("--url", "redis://127.0.0.1:1", "--connect-timeout", "0.2", env=watched(manager))
    assert await process.ended() == 3
    assert not manager.has("READY=1")


async def test_a_manager_that_is_gone_stops_no_worker(
    worker: Callable[..., WorkerProcess], queue: Queue, tmp_path: Path
) -> None:
    process = await worker(env={"NOTIFY_SOCKET": str(tmp_path / "nothing")}).started()
    await queue.push_tasks([[1, 2]])
    await wait_until(lambda: queue.answered(1), "the result")
    await process.said("does not hear READY=1")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


def watched(manager: Listener) -> dict[str, str]:
    """The variables of a service with `WatchdogSec=0.1`."""
    return {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"}
