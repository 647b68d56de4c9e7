"""The HTTP server: every connection is answered or closed, with a status that is no defect of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from unittest.mock import patch

from fakeredis import FakeAsyncRedis

from redis_worker.broker.connection.address import address_of
from redis_worker.http.connections import Connections
from redis_worker.http.server import HttpServer
from redis_worker.vocabulary.service import PartStatus
from tests.fuzz.inputs import any_bytes, choose, json_text
from tests.fuzz.running import AsyncTarget, Violation
from tests.support import Several

TOKEN = "s3Cr3t-of-the-fuzzer"
_PATHS = [
    "/healthz",
    "/ready",
    "/metrics",
    "/",
    "/metrics/",
    "/../metrics",
    "/%00",
    "/metrics?a=b",
    "*",
    "http://h/ready",
]
_METHODS = [b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"DELETE", b"CONNECT", b"TRACE", b"PRI", b"get"]
_HEADERS = [
    *(b"Host: h", b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: websocket"),
    *(b"Accept: application/json", b"Accept: */*", b"Accept-Encoding: gzip, br", b"Expect: 100-continue"),
    *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Content-Encoding: gzip", b"Cookie: a=b"),
    *(b"Authorization: Bearer " + TOKEN.encode(), b"Authorization: Bearer x", b"Authorization: Basic eDp5"),
    *(
        b"Authorization: Bearer \xff\xfe",
        b"Authorization:",
        b"Range: bytes=0-",
        b"X: " + b"y" * 9000,
        b"Sec-WebSocket-Key: x",
    ),
]
_VALID = [
    b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /ready HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
]
_STATUS = re.compile(rb"HTTP/\d\.\d (\d\d\d) ")


def request(random: Random) -> bytes:
    """Return one to three requests, one after another."""
    return b"".join(_request(random) for _ in range(random.choice((1, 1, 1, 2, 3))))


def _request(random: Random) -> bytes:
    path = random.choice(_PATHS).encode()
    if random.random() < 0.1:
        path += b"?" + json_text(random)
    line = b"%b %b HTTP/%b" % (
        random.choice(_METHODS[:2] * 5 + _METHODS),
        path,
        random.choice((b"1.1", b"1.1", b"1.0", b"2.0")),
    )
    headers = random.sample(_HEADERS, random.randrange(5))
    body = random.choice(
        (b"", b"", b"abcde", b"5\r\nabcde\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", any_bytes(random), b"\0")
    )
    return b"\r\n".join([line, *headers, b"", body])


class Web(AsyncTarget):
    """The HTTP server of a supervisor, with a token."""

    name = "http"
    batch = 80
    share = 0.04

    def make(self, random: Random) -> bytes:
        return choose(random, request, _VALID)

    async def open(self) -> None:
        part = PartStatus("a\n\x1b[2J", "pool", "running", 1, "an error\n\u202e")
        server = HttpServer("127.0.0.1:0", TOKEN)
        self._stack = AsyncExitStack()
        limits = Connections(request_seconds=0.1, idle_seconds=0.1)
        self._stack.enter_context(patch("redis_worker.http.server.Connections", lambda: limits))
        await self._stack.enter_async_context(server.answering(Several(part), lambda _: address_of(FakeAsyncRedis())))
        assert server.listening
        host, port = server.listening.rsplit(":", 1)
        self._where = host, int(port)

    async def close(self) -> None:
        await self._stack.aclose()

    async def check(self, inputs: Sequence[bytes]) -> None:
        await asyncio.gather(*map(self._ask, inputs))
        for _ in range(20):  # a busy machine may be too late for the short limits
            answer = await self._exchange(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            if answer.startswith(b"HTTP/1.1 200 OK"):
                return
        raise Violation(f"a health check got {answer[:200]!r}")

    async def _ask(self, raw: bytes) -> None:
        answer = await self._exchange(raw)
        if answer and not _STATUS.match(answer):
            raise Violation(f"the answer is no HTTP: {answer[:200]!r}", raw)
        if b"Traceback" in answer or (TOKEN.encode() in answer and TOKEN.encode() not in raw):
            raise Violation(f"the answer shows too much: {answer!r}", raw)
        if b"500" in _STATUS.findall(answer):
            raise Violation(f"the server calls it its own error: {answer[:300]!r}", raw)
        if b"redis_worker_" in answer and TOKEN.encode() not in raw:
            raise Violation("metrics without the token", raw)

    async def _exchange(self, raw: bytes) -> bytes:
        """Send, and return all that comes until the server closes, as it does soon with a half request."""
        reader, writer = await asyncio.open_connection(*self._where)
        answer = b""
        try:
            writer.write(raw)
            while piece := await reader.read(1 << 16):
                answer += piece
        except ConnectionError:
            pass  # it may close before it has read all
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass
        return answer
