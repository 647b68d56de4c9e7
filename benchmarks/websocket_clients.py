"""WebSocket clients in a process of their own: python -m benchmarks.websocket_clients ADDRESS COUNT EVENTS.

They print `ready`, count what arrives until each has EVENTS events, or nothing came for a while, and print JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from aiohttp import ClientSession, WSMsgType

# Seconds of silence after which no more events are expected.
_SILENCE = 10.0


async def main(address: str, count: int, events: int) -> None:
    """Connect, count and report."""
    latencies: list[float] = []
    async with ClientSession() as session:
        sockets = [await session.ws_connect(f"http://{address}/ws", max_msg_size=0) for _ in range(count)]
        for socket in sockets:
            await socket.send_str('{"subscribe":["bench"]}')
            await socket.receive()
        print("ready", flush=True)

        async def listen(number: int) -> tuple[int, int]:
            received = lost = 0
            while received + lost < events:
                try:
                    message = await sockets[number].receive(timeout=_SILENCE)
                except TimeoutError:
                    break
                if message.type is not WSMsgType.TEXT:
                    break
                text: str = message.data
                if text.startswith('{"lost":'):
                    lost += json.loads(text)["lost"]
                    continue
                received += text.count('{"id":')
                if number == 0:  # parsing all of them would be most of the work
                    latencies.append(time.time() - json.loads(text)["events"][0]["data"]["at"])
            return received, lost

        results = await asyncio.gather(*map(listen, range(count)))
        for socket in sockets:
            await socket.close()
    latencies.sort()
    received, lost = (sum(column) for column in zip(*results, strict=True))
    p99 = latencies[int(len(latencies) * 0.99)] if latencies else 0.0
    print(json.dumps({"received": received, "lost": lost, "p99": p99}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
