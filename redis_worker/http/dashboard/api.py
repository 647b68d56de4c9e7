"""The page's requests: what it reads, and what it asks to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import orjson
from aiohttp import web

from redis_worker.broker.connection.address import Address
from redis_worker.http.dashboard import payloads
from redis_worker.http.dashboard.actions import ACTIONS
from redis_worker.http.dashboard.files import HEADERS
from redis_worker.http.dashboard.watch import Watch
from redis_worker.http.gate import Gate, is_of_foreign_page
from redis_worker.vocabulary.errors import Disconnected, RedisWorkerError
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()

# A form or an image of another page cannot send it, so a request that has it comes from a script of ours.
_MARK = "X-Redis-Worker"
_LARGEST_REQUEST = 64 * 1024
_AT_ONCE = 2
_NEEDED = "a token is required: Authorization: Bearer TOKEN"
_NONE_HERE = (
    "this server has no token, so nothing can be changed here: start it with --http-token, REDIS_WORKER_HTTP_TOKEN, "
    "http_token= or token under [http]"
)


class Api:
    """The handlers below `/api/`."""

    def __init__(self, fleet: Address, gate: Gate, watch: Watch, name: str) -> None:
        """`name` is that of the process, for people."""
        self._fleet = fleet
        self._gate = gate
        self._watch = watch
        self._name = name
        # Payloads are read by few requests at once: the event loop and the memory are the worker's.
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/api/fleet", self._read_fleet),
            web.get("/api/waiting", self._read_waiting),
            web.get("/api/delayed", self._read_delayed),
            web.get("/api/dead", self._read_dead),
            web.get("/api/letter", self._read_letter),
            web.post("/api/do/{action}", self._do),
        ]

    async def _read_fleet(self, request: web.Request) -> web.Response:
        if (refusal := self._unless_read(request)) is not None:
            return refusal
        about = {"name": self._name, "redis": self._fleet.name, "may_change": self._gate.bears_token(request)}
        return _answer(b'{"about":%b,"now":%b}' % (orjson.dumps(about), await self._watch.now()))

    async def _read_waiting(self, request: web.Request) -> web.Response:
        return await self._read(request, lambda queue: payloads.waiting(self._fleet, queue))

    async def _read_delayed(self, request: web.Request) -> web.Response:
        id = request.query.get("id", "")
        return await self._read(request, lambda queue: payloads.delayed(self._fleet, queue, id))

    async def _read_dead(self, request: web.Request) -> web.Response:
        return await self._read(request, lambda queue: payloads.dead(self._fleet, queue, request.query))

    async def _read_letter(self, request: web.Request) -> web.Response:
        key = request.query.get("key", "")
        return await self._read(request, lambda queue: payloads.letter(self._fleet, queue, key))

    async def _read(self, request: web.Request, read: Any) -> web.Response:
        if (refusal := self._unless_read(request)) is not None:
            return refusal
        if not (queue := request.query.get("queue")):
            return _error("the request needs `queue`", 400)
        async with self._turns:
            return await _made(read(queue))

    async def _do(self, request: web.Request) -> web.Response:
        """Do what is asked for, with the token in a header that no browser adds by itself."""
        if not self._gate.has_token:
            return _error(_NONE_HERE, 403)
        if not self._gate.bears_token(request):
            return _error(_NEEDED, 401)
        if not self._gate.is_of_known_origin(request) or _MARK not in request.headers:
            return _error(f"a change comes from the page itself, with the header {_MARK}", 403)
        if (action := ACTIONS.get(request.match_info["action"])) is None:
            return _error(f"unknown action; there are {', '.join(ACTIONS)}", 404)
        if (request.content_length or 0) > _LARGEST_REQUEST or request.content_type != "application/json":
            return _error("a request is a small JSON object", 415)
        try:
            asked = orjson.loads(await request.read())
            if not isinstance(asked, dict):
                raise ValueError("a request is a JSON object")
        except ValueError as error:
            return _error(str(error), 400)
        return await _made(_done(action(self._fleet, asked)))

    def _unless_read(self, request: web.Request) -> web.Response | None:
        if is_of_foreign_page(request):
            return _error("a page of another origin may not read", 403)
        return None if self._gate.may_read(request) else _error(_NEEDED, 401)


async def _done(sentence: Awaitable[str]) -> dict[str, str]:
    done = await sentence
    logger.info("asked for by the dashboard: %s", done)
    return {"done": done}


async def _made(answer: Awaitable[Any]) -> web.Response:
    try:
        found = await answer
    except ValueError as error:
        return _error(str(error), 400)
    except Disconnected as error:
        return _error(f"Redis does not answer: {error}", 503)
    except RedisWorkerError as error:
        return _error(str(error), 409)
    return _error("it is gone", 404) if found is None else _answer(orjson.dumps(found))


def _answer(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers=HEADERS, content_type="application/json")


def _error(text: str, status: int) -> web.Response:
    return _answer(orjson.dumps({"error": text}), status)
