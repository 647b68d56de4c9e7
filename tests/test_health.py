"""`redis-worker health`: what a probe of a container learns from the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redis_worker.embedded import EmbeddedServer
from tests.session import free_port
from tests.support import PATIENCE, ROOT, CommandProcess, Queue, WorkerProcess, wait_until

Start = Callable[..., CommandProcess]


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def serve() -> Iterator[Start]:
    """Start `redis-worker` with arguments; the process is killed at the end."""
    started: list[CommandProcess] = []

    def start(*arguments: str, **options: object) -> CommandProcess:
        started.append(CommandProcess(*arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for process in started:
        process.close()


async def health(*arguments: str, **variables: str) -> tuple[int, str]:
    """Return the exit code of the command, and the lines that it writes; a slow machine has a minute to answer."""
    patience = () if "--timeout" in arguments else ("--timeout", f"{PATIENCE:g}")

    def ask() -> tuple[int, str]:
        command = [sys.executable, "-m", "redis_worker", "health", *arguments, *patience]
        environment = os.environ | variables
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE
        )
        return ended.returncode, ended.stdout + ended.stderr

    return await asyncio.to_thread(ask)


async def becomes(code: int, *arguments: str, **variables: str) -> str:
    """Return what the command writes once its exit code is `code`."""
    last = (-1, "")

    async def look() -> bool:
        nonlocal last
        last = await health(*arguments, **variables)
        return last[0] == code

    await wait_until(look, f"health to exit {code}")
    return last[1]


async def stopped(process: CommandProcess) -> None:
    process.signal(signal.SIGCONT)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_a_worker_with_http(worker: Callable[..., WorkerProcess]) -> None:
    address = f"0.0.0.0:{free_port()}"  # as in a container: the probe connects to the loopback address
    code, text = await health("--http", address)
    assert code == 3
    assert "no worker answers at" in text
    process = worker("--http", address)
    assert "healthy: " in await becomes(0, REDIS_WORKER_HTTP=address)
    await process.started()
    assert (await health("--ready", "--http", address))[0] == 0
    process.freeze()
    assert (await health("--http", address, "--timeout", "0.3"))[0] == 3
    await stopped(process)


async def test_a_live_worker_need_not_be_ready(queue: Queue, serve: Start) -> None:
    address = f"127.0.0.1:{free_port()}"
    nowhere = f"redis://127.0.0.1:{free_port()}"
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output)
    serve("run", *keys, "--processor", "sum", "--url", nowhere, "--http", address, "--connect-timeout", "0")
    await becomes(0, "--http", address)
    assert "unhealthy" in await becomes(1, "--ready", "--http", address)


async def test_a_worker_without_http_reports_in_redis(
    queue: Queue, server: EmbeddedServer, worker: Callable[..., WorkerProcess]
) -> None:
    arguments = ("--url", server.url, "--input", queue.keys.waiting)
    code, text = await health(*arguments)
    assert (code, "unhealthy: 0 of 0 workers" in text) == (1, True)
    process = worker("--lease", "2")
    await becomes(0, *arguments)
    process.freeze()
    assert "unhealthy: 0 of 1 workers" in await becomes(1, *arguments)
    await stopped(process)
    assert "unhealthy: 0 of 0 workers" in await becomes(1, *arguments)


async def test_a_supervisor(queue: Queue, server: EmbeddedServer, serve: Start, tmp_path: Path) -> None:
    pool = f'[pools.adding]\ninput = "{queue.keys.waiting}"\noutput = "{queue.keys.output}"\nprocessor = "sum"\n'
    name = queue.keys.waiting
    redis = f'[worker]\nname = "{name}"\n[redis]\nurl = "{server.url}"\n'
    silent, answering = tmp_path / "silent.toml", tmp_path / "answering.toml"
    silent.write_text(f"{redis}{pool}")
    answering.write_text(f"{redis}[http]\nport = {free_port()}\n{pool}")
    assert f"unhealthy: {name} does not run" in (await health(str(silent)))[1]
    assert (await health(REDIS_WORKER_CONFIG=str(answering)))[0] == 3
    process = serve("serve", str(answering))
    assert "/ready answers 200" in await becomes(0, "--ready", REDIS_WORKER_CONFIG=str(answering))
    assert f"healthy: {name} runs" in await becomes(0, "--ready", str(silent))
    await stopped(process)
    assert (await health(str(silent)))[0] == 1


@pytest.mark.parametrize(
    ("arguments", "file", "code", "reason"),
    [
        (["--url", "redis://127.0.0.1:1"], "", 3, "cannot read the state of workers: no Redis at redis://127.0.0.1:1"),
        (["--http", "127.0.0.1:0"], "", 2, "name one"),
        (["workers.toml"], '[daemons.a]\nrun = "os:getpid"\n', 2, "nothing can be asked; add [http]"),
        (["workers.toml"], "[daemons.a\n", 2, "workers.toml"),
    ],
)
async def test_what_cannot_be_asked(arguments: list[str], file: str, code: int, reason: str, tmp_path: Path) -> None:
    (tmp_path / "workers.toml").write_text(file)
    ended = await health(*(str(tmp_path / name) if name == "workers.toml" else name for name in arguments))
    assert ended[0] == code
    assert reason in ended[1]
