"""The HTTP server beside a worker under bad clients: half requests, idle connections, hundreds of scrapes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from prometheus_client.parser import text_string_to_metric_families

from redis_worker import WorkerPool
from redis_worker.broker.connection.address import address_of
from redis_worker.embedded import EmbeddedServer
from redis_worker.http import connections as limits
from redis_worker.http import pages as http_pages
from redis_worker.http import server as http_server
from redis_worker.http.cached_answer import CachedAnswer
from redis_worker.http.connections import MOST, Connections
from redis_worker.http.exposition import Exposition
from redis_worker.http.server import HttpServer
from redis_worker.vocabulary.service import PartStatus
from tests.support import PATIENCE, CommandProcess, Queue, Several, WorkerProcess, wait_until

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"


@asynccontextmanager
async def pool(**options: Any) -> AsyncIterator[str]:
    async with WorkerPool(FakeAsyncRedis(), "in", "out", "list", "sum", http="127.0.0.1:0", **options) as at_work:
        assert at_work.http_address
        yield at_work.http_address


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = address.rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


async def ask(address: str, path: str = "/healthz", accept: str = "*/*") -> str:
    """Ask over a connection of its own, and return head and body."""
    reader, writer = await connect(address)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        async with asyncio.timeout(PATIENCE):
            return (await reader.read()).decode()
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has ended the connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            while await reader.read(1 << 16):
                pass
        except ConnectionError:
            pass


def limited(monkeypatch: pytest.MonkeyPatch, **options: float) -> None:
    monkeypatch.setattr(http_server, "Connections", lambda: Connections(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: ",
        b"POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nx",
        b"GET /ready HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        HEALTH + b"GET /hea",
        HEALTH + HEALTH + b"POST /healthz HTTP/1.1\r\nContent-Length: 9\r\n\r\n1",
    ],
    ids=["nothing", "line", "headers", "body", "chunk", "second request", "third request's body"],
)
async def test_a_request_that_does_not_arrive_is_given_up(beginning: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a byte comes now and then."""
    limited(monkeypatch, request_seconds=0.3, idle_seconds=0.3)
    async with pool() as address:
        reader, writer = await connect(address)
        writer.write(beginning)
        reading = asyncio.create_task(ended(reader))
        while not reading.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)
        await reading
        assert "200 OK" in await ask(address)
        writer.close()


async def test_a_connection_in_use_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """For longer than a request may take: in its pauses it is idle. A machine that stands still may cost it once."""
    limited(monkeypatch, request_seconds=0.2, idle_seconds=10 * PATIENCE)
    async with pool() as address:
        await wait_until(lambda: is_kept(address), "a connection that is kept")


async def is_kept(address: str) -> bool:
    """Return True if a connection answers three requests, with pauses."""
    reader, writer = await connect(address)
    try:
        for _ in range(3):
            writer.write(HEALTH)
            await reader.readuntil(b"}")
            await asyncio.sleep(0.3)
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()
    return True


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, request_seconds=10 * PATIENCE, idle_seconds=0.3)
    async with pool() as address:
        reader, writer = await connect(address)
        writer.write(HEALTH)
        await ended(reader)
        writer.close()


async def test_who_does_not_read_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks and never reads loses its connection."""
    limited(monkeypatch, request_seconds=0.5, idle_seconds=0.5)
    async with pool() as address:
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.setblocking(False)
            for _ in range(2000):
                try:
                    client.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
                except BlockingIOError:
                    break

            def is_closed() -> bool:
                try:
                    client.send(b"GET")
                except BlockingIOError:
                    return False
                except OSError:
                    return True
                return False

            await wait_until(is_closed)


def accepted(address: str) -> int:
    """Return the number of open sockets on the server's side; not of descriptors, which other things of a test open."""
    port, listening = f"{int(address.rsplit(':', 1)[1]):04X}", "0A"
    fields = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(
        local.endswith(f":{port}") and state != listening and inode != "0"
        for _, local, _, state, _, _, _, _, _, inode, *_ in fields
    )


@pytest.mark.parametrize("beginning", [b"", b"GET /healthz HTTP/1.1\r\nHost", HEALTH])
async def test_connections_have_a_cap_and_health_checks_get_through(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, request_seconds=10 * PATIENCE)  # none is closed for another reason
    async with pool() as address:
        held = []
        for number in range(600):
            held.append(await connect(address))
            held[-1][1].write(beginning)
            if number % 50 == 49:
                assert "200 OK" in await ask(address)
        assert "200 OK" in await ask(address, "/ready")
        await wait_until(lambda: 0 < accepted(address) <= MOST)
        for reader, writer in held:
            writer.close()
            await ended(reader)
        await wait_until(lambda: accepted(address) == 0, "all connections to be closed")
        assert "200 OK" in await ask(address)


async def test_the_connection_without_a_request_for_longest_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, most=3)
    async with pool() as address:
        scraper = await connect(address)
        others = []
        for _ in range(20):
            scraper[1].write(HEALTH)
            async with asyncio.timeout(PATIENCE):
                assert await scraper[0].readuntil(b"}")
            others.append(await connect(address))
        for reader, writer in others[:-2]:
            await ended(reader)
            writer.close()
        for _, writer in (scraper, *others[-2:]):
            writer.close()


async def test_a_worker_with_few_descriptors_works_on(server: EmbeddedServer, queue: Queue, tmp_path: Path) -> None:
    """A worker that may open 200 files, and 500 half requests."""
    process = CommandProcess(
        *("run", "--url", server.url, "--input", queue.keys.waiting, "--output", queue.keys.output),
        *("--processor", "sum", "--http", "127.0.0.1:0"),
        limit_files=200,
    )
    held = []
    try:
        await process.said("answers /healthz")
        address = process.log.partition("http://")[2].split()[0]
        for _ in range(500):
            held.append(await connect(address))
            held[-1][1].write(b"GET /healthz HTTP/1.1\r\nX")
        await queue.push_tasks([[1, 2], [3, 4]])
        await wait_until(lambda: queue.answered(2))
        assert "200 OK" in await ask(address)
        assert process.alive
    finally:
        for _, writer in held:
            writer.close()
        process.process.terminate()
        assert await process.ended() == 0, process.log
        process.close()


@pytest.mark.parametrize(("path", "accept"), [("/metrics", "*/*"), ("/metrics", "application/json")])
async def test_500_clients_have_it_rendered_once_a_second(
    path: str, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = []

    class Counted(Exposition):
        def text(self) -> bytes:
            rendered.append(time.monotonic())
            return super().text()

    summarise = http_pages.Pages._summarise

    async def counted(pages: Any) -> bytes:
        rendered.append(time.monotonic())
        return await summarise(pages)

    monkeypatch.setattr(http_pages, "Exposition", Counted)
    monkeypatch.setattr(http_pages.Pages, "_summarise", counted)
    limited(monkeypatch, most=1000)
    async with pool() as address:
        began = time.monotonic()
        answers = await asyncio.gather(*(ask(address, path, accept) for _ in range(500)))
        assert {answer.partition("\r")[0] for answer in answers} == {"HTTP/1.1 200 OK"}
        seconds = time.monotonic() - began
        assert 1 <= len(rendered) <= seconds + 1
        assert all(later - earlier >= 0.9 for earlier, later in pairwise(rendered))


async def test_a_supervisor_adds_up_its_processes_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HttpServer("127.0.0.1:0")
    added = []
    total = type(server.metrics).total
    monkeypatch.setattr(type(server.metrics), "total", lambda self: added.append(1) or total(self))
    service = Several(*(PartStatus(f"p{number}", "pool", "running") for number in range(50)))
    async with server.answering(service, lambda _: address_of("redis://localhost:1")):
        assert server.listening
        began = time.monotonic()
        answers = await asyncio.gather(*(ask(server.listening, "/metrics") for _ in range(80)))
        assert all("200 OK" in answer for answer in answers)
        assert 1 <= len(added) <= time.monotonic() - began + 1
        service.statuses[0] = PartStatus("p0", "pool", "failed")
        assert "p0: failed" in await ask(server.listening, "/ready")


async def test_remembered_is_made_once_at_a_time_and_survives_who_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    made, gate = [], asyncio.Event()

    async def make() -> int:
        made.append(1)
        await gate.wait()
        if len(made) == 2:
            raise RuntimeError("broken")
        return len(made)

    remembered = CachedAnswer(make)
    asking = [asyncio.create_task(remembered.get()) for _ in range(10)]
    await asyncio.sleep(0)
    asking[0].cancel()
    gate.set()
    assert [await task for task in asking[1:]] == [1] * 9
    assert await remembered.get() == 1
    monkeypatch.setattr("redis_worker.http.cached_answer.SECONDS", 0.0)
    with pytest.raises(RuntimeError):
        await remembered.get()
    monkeypatch.setattr("redis_worker.http.cached_answer.SECONDS", 1000.0)
    assert await remembered.get() == 3  # a failure is not kept
    assert await remembered.get() == 3
    await remembered.close()


# Processes


def samples(answer: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(answer.partition("\r\n\r\n")[2])
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if family.name.startswith("process_")
    }


NAMES = ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]


async def test_the_process_is_measured(server: EmbeddedServer, worker: Any) -> None:
    process: WorkerProcess = await worker("--http", "127.0.0.1:0").started()
    address = process.log.partition("http://")[2].split()[0]
    found = samples(await ask(address, "/metrics"))
    assert set(NAMES) <= {name for name, _ in found}
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    assert 0.5 * resident < found["process_resident_memory_bytes", ()] < 2 * resident
    assert found["process_cpu_seconds_total", ()] > 0
    assert 0 < found["process_open_fds", ()] < found["process_max_fds", ()]
    process.signal(15)
    assert await process.ended() == 0


async def test_processes_of_parts_are_measured(server: EmbeddedServer, queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "workers.toml").write_text(
        f'[redis]\nurl = "{server.url}"\n[http]\nport = 0\n[pools.a]\ninput = "{queue.keys.waiting}"\n'
        f'output = "{queue.keys.output}"\nprocessor = "sum"\nprocesses = 2\n'
    )
    process = CommandProcess("serve", str(tmp_path / "workers.toml"))
    try:
        await process.said("answers /healthz")
        address = process.log.partition("http://")[2].split()[0]

        async def both() -> Any:
            found = samples(await ask(address, "/metrics"))
            labels = {labels for name, labels in found if name == "process_resident_memory_bytes"}
            whole = {(), (("part", "a"), ("process", "1")), (("part", "a"), ("process", "2"))}
            return found if labels == whole else None

        found = await wait_until(both)
        assert all(value > 0 for (name, _), value in found.items() if name in NAMES[1:])
        await wait_until(lambda: queue.redis.exists(queue.keys.workers))
    finally:
        process.signal(15)
        assert await process.ended() == 0, process.log
        process.close()


def test_the_limits_are_documented() -> None:
    text = (Path(__file__).parent.parent / "docs/metrics.md").read_text()
    for number in (limits.MOST, limits.REQUEST_SECONDS, limits.IDLE_SECONDS):
        assert f"{number:g}" in text
