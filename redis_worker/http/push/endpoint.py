"""The path `/ws`: a WebSocket connection, from the handshake to its end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

import orjson
from aiohttp import WSMsgType, web

from redis_worker.http.gate import PROTOCOL, Gate
from redis_worker.http.push.client import SLOW, Client
from redis_worker.http.push.hub import Hub
from redis_worker.vocabulary.channel import is_channel

# Largest message of a client, in bytes, and most channels of one.
_LARGEST_REQUEST, _MOST_CHANNELS = 64 * 1024, 1000
# Interval of pings, in seconds; a client that does not answer within half of it is gone.
_PING_EVERY = 20.0
# The time for the closing handshake, in seconds.
_CLOSE_PATIENCE = 1.0
_ID = re.compile(r"\d{1,15}-\d{1,15}")
_KNOWN = "subscribe, unsubscribe, after, slow, ping"


class Endpoint:
    """The handler of WebSocket requests."""

    def __init__(self, hub: Hub, gate: Gate, keep: Callable[[web.Request], None]) -> None:
        """`keep` is called with a request whose connection is to last."""
        self._hub = hub
        self._gate = gate
        self._keep = keep
        self._sockets: dict[web.WebSocketResponse, asyncio.Transport] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it leaves."""
        if not self._gate.is_of_known_origin(request):
            return web.json_response({"error": "a page of another origin may not connect"}, status=403)
        if not self._gate.may_read(request):
            return web.json_response(
                {"error": "a token is required: Authorization: Bearer TOKEN, or the subprotocol bearer.BASE64URL"},
                status=401,
                headers={"WWW-Authenticate": 'Bearer realm="redis_worker"'},
            )
        if self._hub.is_full:
            return web.json_response({"error": "too many clients"}, status=503, headers={"Retry-After": "10"})
        socket = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            heartbeat=_PING_EVERY,
            max_msg_size=_LARGEST_REQUEST,
            compress=False,  # a context for each client would be most of its memory
            timeout=_CLOSE_PATIENCE,
        )
        if not socket.can_prepare(request).ok:
            return web.json_response({"error": "this is the path of WebSocket connections"}, status=426)
        await socket.prepare(request)
        self._keep(request)
        transport = cast(asyncio.Transport, request.transport)
        client = Client(socket, transport, self._hub.most_bytes)
        self._sockets[socket] = transport
        self._hub.join(client)
        reading, writing = asyncio.create_task(self._read(socket, client)), asyncio.create_task(client.write())
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._sockets[socket]
            for task in (reading, writing):
                task.cancel()
            await asyncio.wait({reading, writing})
            for task in (reading, writing):
                if not task.cancelled() and not isinstance(task.exception(), (ConnectionError, type(None))):
                    task.result()
            await self._hub.leave(client)
        return socket

    async def close(self) -> None:
        """Say goodbye to all clients, cut off those that do not read it, and close the hub."""
        text = b"the server stops"
        goodbye = [asyncio.create_task(socket.close(code=1001, message=text)) for socket in self._sockets]
        if goodbye:
            _, silent = await asyncio.wait(goodbye, timeout=2 * _CLOSE_PATIENCE)
            for transport in self._sockets.values():
                transport.abort()
            for task in silent:
                task.cancel()
        await self._hub.close()

    async def _read(self, socket: web.WebSocketResponse, client: Client) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                await client.answer({"error": "a request is JSON, in a text message"})
                continue
            try:
                request = orjson.loads(message.data)
                if not isinstance(request, dict):
                    raise ValueError("a request is a JSON object")
                await self._answer(client, request)
            except ValueError as error:
                await client.answer({"error": str(error)})

    async def _answer(self, client: Client, request: dict[str, Any]) -> None:
        """Do what `request` asks for. Raises ValueError if it is not valid."""
        if unknown := request.keys() - set(_KNOWN.split(", ")):
            raise ValueError(f"unknown member {min(unknown)!r}; a request has some of {_KNOWN}")
        after, slow = request.get("after"), request.get("slow", client.slow)
        if after is not None and not (isinstance(after, str) and _ID.fullmatch(after)):
            raise ValueError(f"`after` is the id of an event, not {after!r}")
        if slow not in SLOW:
            raise ValueError(f"`slow` is one of {', '.join(SLOW)}, not {slow!r}")
        wanted, unwanted = (_channels(request.get(name, [])) for name in ("subscribe", "unsubscribe"))
        if len(client.channels | wanted) > _MOST_CHANNELS:
            raise ValueError(f"a client has at most {_MOST_CHANNELS} channels")
        client.slow = slow
        if wanted or unwanted:
            self._hub.unsubscribe(client, unwanted)
            last = await self._hub.subscribe(client, wanted, after)
            await client.answer({"subscribed": sorted(client.channels), "last": last})
        if "ping" in request:
            await client.answer({"pong": request["ping"]})


def _channels(names: Any) -> frozenset[str]:
    if not isinstance(names, list) or not all(map(is_channel, names)):
        raise ValueError("channels are a list of names, each of 1 to 200 printable characters")
    return frozenset(names)
