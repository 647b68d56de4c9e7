"""WebSocket clients in a process of their own: python -m benchmarks.websocket_clients ADDRESS COUNT EVENTS.

They print `ready`, count what arrives until each has EVENTS events, or nothing came for a while, and print JSON. They
look for the events in the bytes and parse no frames, which here would be most of the work: browsers have own machines.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

# Seconds of silence after which no more events are expected.
_SILENCE = 10.0
_EVENT, _AT = b'{"id":', b'"at":'


class Client(asyncio.Protocol):
    """A client that counts."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.received = 0
        self.heard = time.monotonic()
        self.latencies: list[float] = []
        self.subscribed = asyncio.Event()
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        request = b'{"subscribe":["bench"]}'
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(
            f"GET /ws HTTP/1.1\r\nHost: {self._address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        transport.write(bytes([0x81, 0x80 | len(request), 0, 0, 0, 0]) + request)  # masked with zeros

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        if not self.subscribed.is_set() and b'"subscribed"' in data:
            self.subscribed.set()
        self.received += data.count(_EVENT)
        self.heard = time.monotonic()
        # No whole mark is in it, so that none counts twice.
        self._tail = data[-len(_EVENT) + 1 :]
        at = data.find(_AT)
        if 0 <= at < len(data) - 40:
            self.latencies.append(time.time() - float(data[at + len(_AT) :].partition(b",")[0][:20]))


async def main(address: str, count: int, events: int) -> None:
    """Connect, count and report."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(lambda: Client(address), host, int(port)))[1] for _ in range(count)]
    for client in clients:
        await client.subscribed.wait()
    print("ready", flush=True)
    for client in clients:
        while client.received < events and time.monotonic() - client.heard < _SILENCE:  # noqa: ASYNC110 - as cheap as can be
            await asyncio.sleep(0.1)
    latencies = sorted(clients[0].latencies)
    p99 = latencies[int(len(latencies) * 0.99)] if latencies else 0.0
    print(json.dumps({"received": sum(client.received for client in clients), "p99": p99}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
