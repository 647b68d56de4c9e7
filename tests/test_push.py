"""Events for WebSocket clients: sent by a Broadcaster anywhere, received at `/ws` of any process."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from redis import Redis as SyncRedis

from redis_worker import Broadcaster, ConfigurationError, WorkerPool
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.keys import EVENTS
from redis_worker.embedded import EmbeddedServer
from redis_worker.http.push.hub import Hub
from redis_worker.http.server import HttpServer
from tests.support import Queue, Several, WorkerProcess, wait_until
from tests.websocket import Socket, connected, protocols

Start = Callable[..., WorkerProcess]


@pytest.fixture
async def broadcaster(server: EmbeddedServer, queue: Queue) -> AsyncIterator[Broadcaster]:
    async with Broadcaster(server.url) as made:
        yield made
    await queue.redis.delete(EVENTS)


@asynccontextmanager
async def serving(url: str, token: str | None = None, **options: Any) -> AsyncIterator[HttpServer]:
    """A server of events, without a worker."""
    http, address = HttpServer("127.0.0.1:0", token, **options), address_of(url)
    async with http.answering(Several(), lambda _: address, address):
        yield http


def numbers(client: Socket) -> list[Any]:
    return [event["data"] for event in client.events]


async def test_events_reach_the_clients_of_their_channel(server: EmbeddedServer, broadcaster: Broadcaster) -> None:
    async with serving(server.url) as http, connected(http.listening) as one, connected(http.listening) as two:
        assert (await one.subscribe("device.42", "alerts"))["subscribed"] == ["alerts", "device.42"]
        await two.subscribe("device.7")
        data = {"temperature": 21.5, "name": "é\u2028</script>", "big": 2**53}
        id = await broadcaster.send("device.42", data)
        ids = await broadcaster.send_many([("device.7", [1]), ("nobody", 2), ("alerts", None)])
        assert await one.receive_events(2) == [
            {"id": id, "channel": "device.42", "data": data},
            {"id": ids[2], "channel": "alerts", "data": None},
        ]
        assert await two.receive_events(1) == [{"id": ids[0], "channel": "device.7", "data": [1]}]
        await one.request(unsubscribe=["device.42"])
        assert (await one.message("subscribed"))["subscribed"] == ["alerts"]
        await broadcaster.send_many([("device.42", 1), ("alerts", 2)])
        assert (await one.receive_events(3))[2]["data"] == 2
        await one.request(ping="here")
        assert await one.receive() == {"pong": "here"}


async def test_a_name_that_ends_with_a_star_brings_all_channels_that_begin_so(
    server: EmbeddedServer, broadcaster: Broadcaster
) -> None:
    """Each event once, whatever brings its channel; in a replay, only those of channels that are new."""
    async with serving(server.url) as http, connected(http.listening) as one, connected(http.listening) as two:
        await broadcaster.send("before", 0)
        await one.subscribe("device.*", "device.1", "dev*")
        last = (await two.subscribe("device.1"))["last"]
        await broadcaster.send_many([("device.1", 1), ("device.22", 2), ("devils", 3), ("other", 4), ("device.*", 5)])
        await one.receive_events(4)
        assert numbers(one) == [1, 2, 3, 5]
        await two.receive_events(1)
        await two.subscribe("device.*", "*", after=last)
        assert await two.message("replayed") == {"replayed": 4, "complete": True}
        assert numbers(two) == [1, 2, 3, 4, 5]
        await two.request(unsubscribe=["*", "device.1"])
        await two.message("subscribed")
        await broadcaster.send_many([("other", 6), ("device.1", 7)])
        await two.receive_events(6)
        assert numbers(two) == [1, 2, 3, 4, 5, 7]


async def test_an_event_sent_here_arrives_at_a_client_of_another_process(
    server: EmbeddedServer, queue: Queue, worker: Start, broadcaster: Broadcaster
) -> None:
    process = await worker("--http", "127.0.0.1:0").started()
    address = process.log.partition("http://")[2].partition(" ")[0]
    async with serving(server.url) as http, connected(http.listening) as near, connected(address) as far:
        await near.subscribe("news")
        await far.subscribe("news")
        await broadcaster.send("news", "for all")
        assert await near.receive_events(1) == await far.receive_events(1)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_handlers_of_a_worker_send(server: EmbeddedServer, queue: Queue, broadcaster: Broadcaster) -> None:
    async def work(arguments: list[Any]) -> Any:
        await broadcaster.send("done", arguments[0])
        return arguments[0]

    keys = queue.keys
    async with (
        WorkerPool(server.url, keys.waiting, keys.output, "list", work, http="127.0.0.1:0") as pool,
        connected(pool.http_address) as client,
    ):
        await client.subscribe("done")
        await queue.push_tasks([[n] for n in range(50)])
        await client.receive_events(50)
        assert sorted(numbers(client)) == list(range(50))


async def test_a_client_that_comes_back_gets_what_it_missed_once_and_in_order(
    server: EmbeddedServer, broadcaster: Broadcaster
) -> None:
    """Events are sent all the time, and the client leaves after each few: every number arrives, in order, once."""
    total, seen, last, reconnections = 3000, list[int](), "", 0

    async def send() -> None:
        for start in range(0, total, 20):
            await broadcaster.send_many([("n", n) for n in range(start, start + 20)] + [("other", 0)])
            await asyncio.sleep(0)

    async with serving(server.url) as http:
        async with connected(http.listening) as client:
            last = (await client.subscribe("n"))["last"]
        sending = asyncio.create_task(send())
        while len(seen) < total:
            async with connected(http.listening) as client:
                await client.subscribe("n", after=last)
                await client.receive_events(200 if len(seen) + 200 < total else total - len(seen))
                seen += numbers(client)
                last, reconnections = client.events[-1]["id"], reconnections + 1
        await sending
    assert seen == list(range(total))
    assert reconnections > 3


async def test_a_replay_says_whether_events_are_missing(server: EmbeddedServer, queue: Queue) -> None:
    async with serving(server.url) as http, Broadcaster(server.url, keep=100) as broadcaster:
        first = await broadcaster.send("n", 0)
        second = await broadcaster.send("n", 1)
        async with connected(http.listening) as client:
            await client.subscribe("n", after=first)
            assert await client.message("replayed") == {"replayed": 1, "complete": True}
        await broadcaster.send_many([("n", n) for n in range(2, 2000)])
        kept = await queue.redis.xlen(EVENTS)
        assert kept < 500, "the stream is bounded"
        async with connected(http.listening) as client:
            await client.subscribe("n", after=second)
            assert await client.message("replayed") == {"replayed": kept, "complete": False}
            assert numbers(client) == list(range(2000 - kept, 2000))
    await queue.redis.delete(EVENTS)


async def test_a_server_that_reads_too_late_says_that_events_are_missing(server: EmbeddedServer, queue: Queue) -> None:
    async with serving(server.url) as http, connected(http.listening) as client:
        await client.subscribe("n")
        # In one step of the event loop, so that the server reads nothing meanwhile.
        with SyncRedis.from_url(server.url) as redis, redis.pipeline() as pipeline:
            for n in range(3000):
                pipeline.xadd(EVENTS, {"channel": "n", "data": str(n)}, maxlen=700, approximate=False)
            pipeline.execute()
        assert await client.message("complete") == {"replayed": 0, "complete": False}
        await client.receive_events(700)
        assert numbers(client) == list(range(2300, 3000))
    await queue.redis.delete(EVENTS)


async def test_redis_goes_away_and_no_event_is_lost(own_server: EmbeddedServer) -> None:
    async with (
        Broadcaster(own_server.url) as broadcaster,
        serving(own_server.url) as http,
        connected(http.listening) as client,
    ):
        await client.subscribe("n")
        await broadcaster.send("n", 1)
        await client.receive_events(1)
        await asyncio.to_thread(own_server.restart, signal.SIGKILL)
        await wait_until(lambda: _sent(broadcaster, 2))
        await client.receive_events(2)
        assert numbers(client) == [1, 2]


async def _sent(broadcaster: Broadcaster, data: Any) -> bool:
    try:
        await broadcaster.send("n", data)
    except Exception:
        return False
    return True


def _silent_client(address: str, request: str) -> socket.socket:
    """A client that asks for events and never reads."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert b"101" in connection.recv(4096)
    payload = request.encode()
    connection.sendall(bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload)  # masked with zeros
    return connection


@pytest.mark.parametrize("slow", ["drop", "cut"])
async def test_a_client_that_does_not_read_is_bounded_and_slows_nobody(
    server: EmbeddedServer, queue: Queue, slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 MB pass; it may hold 300 kB. Another client receives all of them."""
    hubs = list[Hub]()
    original = Hub.__init__

    def remembering(self: Hub, *arguments: Any) -> None:
        original(self, *arguments, most_bytes=300_000)
        hubs.append(self)

    monkeypatch.setattr(Hub, "__init__", remembering)
    count, text = 1500, "x" * 40_000
    async with serving(server.url) as http, Broadcaster(server.url, keep=200) as broadcaster:
        assert http.listening
        request = json.dumps({"subscribe": ["n"], "slow": slow})
        silent = await asyncio.to_thread(_silent_client, http.listening, request)
        [hub] = hubs
        await wait_until(lambda: hub.is_watched("n"))
        [its] = hub.clients
        async with connected(http.listening, max_msg_size=0) as reader:
            await reader.subscribe("n")
            for n in range(0, count, 10):
                await broadcaster.send_many([("n", [n + m, text]) for m in range(10)])
                await reader.receive_events(n + 10)
                assert its._backlog._bytes <= 300_000 + 200_000
                for event in reader.events[-10:]:
                    event["data"] = event["data"][0]
            assert numbers(reader) == list(range(count))
        if slow == "cut":
            await wait_until(lambda: not hub.clients)
            assert (hub.counts.cut, hub.counts.lost) == (1, 0)
        else:
            assert hub.counts.cut == 0
            assert hub.counts.lost > 100
            silent.setblocking(False)
            received = b""

            async def told() -> bool:
                nonlocal received
                try:
                    received = received[-100:] + silent.recv(1 << 20)
                except BlockingIOError:
                    pass
                return b'{"lost":' in received

            await wait_until(told)
        silent.close()
    await queue.redis.delete(EVENTS)


async def test_a_server_stops_although_a_client_does_not_read(server: EmbeddedServer, queue: Queue) -> None:
    async with serving(server.url) as http, Broadcaster(server.url, keep=100) as broadcaster:
        assert http.listening
        silent = await asyncio.to_thread(_silent_client, http.listening, '{"subscribe":["n"]}')
        async with connected(http.listening, max_msg_size=0) as reader:
            await reader.subscribe("n")
            for n in range(40):
                await broadcaster.send_many([("n", "x" * 50_000)] * 10)
                await reader.receive_events((n + 1) * 10)
    silent.close()
    await queue.redis.delete(EVENTS)


async def test_the_token(server: EmbeddedServer, broadcaster: Broadcaster) -> None:
    """On this machine none is needed to read; a proxy here, or a name that resolves to here, is elsewhere."""
    token = "s=cret, ütf"
    async with serving(server.url, token) as http:
        elsewhere: list[dict[str, str]] = [
            {"X-Forwarded-For": "1.2.3.4"}, {"Forwarded": "for=1.2.3.4"}, {"Via": "1.1 proxy"},
            {"Host": "evil.example"},
        ]  # fmt: skip
        for headers in elsewhere:
            for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
                assert await _refused(http, headers=headers | wrong) == 401
            assert await _refused(http, headers=headers, protocols=protocols("wrong")) == 401
            async with connected(http.listening, headers=headers, protocols=protocols(token)) as client:
                assert client.connection.protocol == "redis_worker"
        async with connected(http.listening, headers={"Via": "x", "Authorization": "bearer  s=cret, ütf"}) as client:
            await client.subscribe("n")
        async with connected(http.listening) as client:
            await client.subscribe("n")


async def test_pages_of_other_origins_may_not_connect(server: EmbeddedServer, broadcaster: Broadcaster) -> None:
    async with serving(server.url, origins=["https://shop.example"]) as http:
        for origin in ("https://evil.example", "null", "https://shop.example.evil", "http://127.0.0.1:1"):
            assert await _refused(http, headers={"Origin": origin}) == 403
        for origin in ("https://shop.example", f"http://{http.listening}"):
            async with connected(http.listening, headers={"Origin": origin}) as client:
                await client.subscribe("n")


async def _refused(http: HttpServer, **options: Any) -> int:
    with pytest.raises(WSServerHandshakeError) as caught:
        async with connected(http.listening, **options):
            pass
    return caught.value.status


async def test_the_number_of_clients_is_bounded_and_others_get_through(
    server: EmbeddedServer, broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub.__init__, "__defaults__", (2, 100_000))
    async with serving(server.url) as http, ClientSession() as session:
        async with connected(http.listening) as one, connected(http.listening):
            assert await _refused(http) == 503
            assert (await session.get(f"http://{http.listening}/healthz")).status == 200
            assert (await session.get(f"http://{http.listening}/ws")).status in (426, 503)
            await one.subscribe("n")
        await wait_until(lambda: _connects(http))


async def _connects(http: HttpServer) -> bool:
    try:
        async with connected(http.listening) as client:
            await client.subscribe("n")
            return True
    except WSServerHandshakeError:
        return False


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ("no JSON", ""),
        ("[1]", "a request is a JSON object"),
        ('{"subscripe":["a"]}', "unknown member 'subscripe'; a request has some of subscribe, unsubscribe, after,"),
        ('{"subscribe":"a"}', "channels are a list of names"),
        ('{"subscribe":[""]}', "channels are a list of names"),
        ('{"subscribe":["\\n"]}', "channels are a list of names"),
        ('{"subscribe":["a"],"after":"+"}', "`after` is the id of an event, not '+'"),
        ('{"slow":"never"}', "`slow` is one of drop, cut, not 'never'"),
    ],
)
async def test_a_request_that_is_not_valid_is_answered_with_a_sentence(
    server: EmbeddedServer, broadcaster: Broadcaster, request_: str, error: str
) -> None:
    async with serving(server.url) as http, connected(http.listening) as client:
        await client.connection.send_str(request_)
        assert error in (await client.receive())["error"]
        await client.connection.send_bytes(b"{}")
        assert (await client.receive())["error"] == "a request is JSON, in a text message"
        await client.request(subscribe=["a"] * 500 + [f"{n}" for n in range(501)])
        assert "at most 1000" not in json.dumps(await client.message("subscribed"))
        await client.request(subscribe=[f"other {n}" for n in range(500)])
        assert (await client.receive())["error"] == "a client has at most 1000 channels"
        await client.connection.send_str("x" * 70_000)
        assert await client.closed() == 1009


@pytest.mark.parametrize("channel", ["", "a" * 201, "redis_worker.status", "a\nb", 7, None, "\ud800"])
async def test_names_that_are_no_channels(server: EmbeddedServer, broadcaster: Broadcaster, channel: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid channel"):
        await broadcaster.send(channel, 1)


async def test_data_that_cannot_be_sent(server: EmbeddedServer, broadcaster: Broadcaster) -> None:
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        await broadcaster.send("a", "x" * 65_536)
    for no_json in (float("nan"), {1, 2}, object()):
        with pytest.raises(ValueError):
            await broadcaster.send("a", no_json)


async def test_what_others_write_to_the_stream_does_no_harm(
    server: EmbeddedServer, queue: Queue, broadcaster: Broadcaster
) -> None:
    """Nobody but the server itself fills its own channels, and what is no event is ignored."""
    async with serving(server.url) as http, connected(http.listening) as client:
        await client.subscribe("n", "redis_worker.status")
        for fields in (
            {"channel": "n", "data": '1}]}{"events":['}, {"channel": "n"}, {"data": "1"},
            {"channel": b"\xff", "data": "1"},
            {"channel": "n", "data": b'"\xff"'}, {"channel": "redis_worker.status", "data": "1"}, {"a": "b"},
        ):  # fmt: skip
            await queue.redis.xadd(EVENTS, fields)
        await broadcaster.send("n", "good")
        await client.receive_events(1)
        assert numbers(client) == ["good"]


async def test_without_clients_nothing_is_read(server: EmbeddedServer, queue: Queue, broadcaster: Broadcaster) -> None:
    async def names() -> list[str]:
        return [found["cmd"] for found in await queue.redis.client_list()]

    async with serving(server.url) as http:
        async with connected(http.listening) as client:
            await client.subscribe("n")
            assert "xread" in await names()
        await wait_until(lambda: _is_quiet(names))


async def _is_quiet(names: Callable[[], Any]) -> bool:
    return "xread" not in await names()


async def test_a_server_that_stops_says_goodbye(server: EmbeddedServer, broadcaster: Broadcaster) -> None:
    async with ClientSession() as session:
        async with serving(server.url) as http:
            client = Socket(await session.ws_connect(f"http://{http.listening}/ws"))
            await client.subscribe("n")
            leaving = asyncio.create_task(client.closed())
            await asyncio.sleep(0)
        assert await leaving == 1001


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server
