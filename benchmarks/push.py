"""Events to WebSocket clients: those that arrive of 10,000 a second to 100 clients, and what that costs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.memory import resident
from benchmarks.report import Row
from redis_worker import Broadcaster

RATE = 10_000
"""Events per second."""
CLIENTS = 100

_BATCH = 100


def push(url: str, seconds: float, progress: Callable[[str], None]) -> Iterator[Row]:
    """Yield the rows: events delivered, latency, and CPU and memory of the serving process."""
    progress(f"push: {RATE:,} events a second to {CLIENTS} clients")
    arguments = ("redis_worker", "dashboard", "--url", url, "--http", "127.0.0.1:0", "--http-token", "bench")
    total = int(RATE * seconds) // _BATCH * _BATCH
    with _program(*arguments) as server:
        address = _line(server).partition("http://")[2].strip().rstrip("/")
        with _program("benchmarks.websocket_clients", address, str(CLIENTS), str(total)) as clients:
            assert _line(clients).strip() == "ready"
            before, started = _cpu(server.pid), time.monotonic()
            sent_in = asyncio.run(_send(url, total))
            found = json.loads(_line(clients))
            cpu = (_cpu(server.pid) - before) / (time.monotonic() - started)
            memory = resident(server.pid)
        server.terminate()
    expected = total * CLIENTS
    share = found["received"] / expected
    rate = total / sent_in
    yield Row(
        f"push: events to {CLIENTS} clients", f"{rate * share:,.0f}/s each", f"{share:.2%} arrived", None,
        f"{RATE:,}/s", share == 1.0 and rate > RATE * 0.98,
    )  # fmt: skip
    yield Row("push: latency at p99", f"{found['p99'] * 1000:.0f} ms")
    yield Row("push: CPU of the server", f"{cpu:.0%} of a core", f"{memory:.0f} MB")


async def _send(url: str, total: int) -> float:
    """Send `total` events at the rate. Returns the seconds it took."""
    async with Broadcaster(url) as broadcaster:
        started = time.monotonic()
        for sent in range(0, total, _BATCH):
            if (ahead := sent / RATE - (time.monotonic() - started)) > 0:
                await asyncio.sleep(ahead)
            data = {"at": time.time(), "device": sent, "temperature": 21.5, "unit": "C"}
            await broadcaster.send_many([("bench", data)] * _BATCH)
        return time.monotonic() - started


def _program(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _cpu(pid: int) -> float:
    """Return the CPU time of a process, in seconds."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
