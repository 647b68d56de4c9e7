"""The supervisor's status, published over HTTP, and in Redis for `redis-worker status`."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from redis_worker.broker.connection.address import Address, Client, address_of
from redis_worker.broker.operator.supervisors import announced
from redis_worker.file.plan import DaemonPart, HttpSettings, KafkaPart, Part, Plan, TasksPart
from redis_worker.file.queues import find_queue
from redis_worker.http.subject import Supervised
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Consuming

if TYPE_CHECKING:
    from redis_worker.http.metrics import Metrics
    from redis_worker.http.server import HttpServer

logger = library_logger("redis_worker.supervisor")


def _server_of(part: Part) -> str | Client | None:
    """Return the Redis server of `part`, None if it has none, or if a queue that names its own cannot be found."""
    if isinstance(part, TasksPart):
        with suppress(ConfigurationError):
            return part.url or find_queue(part.queue).redis
        return None
    return None if isinstance(part, DaemonPart | KafkaPart) else part.url


def _home_of(plan: Plan) -> str | Client | None:
    """Return the server that the supervisor is announced on: that of the file, or of its first queue of functions."""
    if plan.url is not None:
        return plan.url
    queues = (_server_of(part) for part in plan.parts if isinstance(part, TasksPart))
    return next((server for server in queues if server is not None), None)


class StatusPublisher:
    """The publisher of the status of `service`, as a plan configures it."""

    def __init__(self, service: Supervised, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._http: HttpSettings | None = None
        self._server: HttpServer | None = None
        self._home: str | Client | None = None
        self._serving = AsyncExitStack()
        self._announcing = AsyncExitStack()
        self._addresses: dict[str, Address] = {}

    @property
    def http_address(self) -> str | None:
        """The host and port that the HTTP server listens on; None without one."""
        return None if self._server is None else self._server.listening

    async def open(self, plan: Plan, *, strict: bool = False) -> None:
        """Publish as `plan` configures, replacing the settings of the plan before.

        If the HTTP server cannot start, log an error and continue; if `strict`, raise ConfigurationError.
        """
        # Keep the addresses of parts that are stopping: HTTP still reports their queues.
        self._addresses |= {
            part.name: address_of(server) for part in plan.parts if (server := _server_of(part)) is not None
        }
        home = _home_of(plan)
        if plan.http != self._http or home != self._home:
            await self._serving.aclose()
            self._http = self._server = None
            if plan.http is not None:
                await self._serve(plan.http, home, strict)
        if home != self._home:
            await self._announcing.aclose()
            self._home = home
            if home is not None:
                service = self._service
                await self._announcing.enter_async_context(
                    announced(address_of(home), lambda: {"name": service.service, "parts": service.parts()})
                )

    async def close(self) -> None:
        """Stop publishing."""
        await self._announcing.aclose()
        await self._serving.aclose()

    async def _serve(self, http: HttpSettings, home: str | Client | None, strict: bool) -> None:
        from redis_worker.http.address import HttpAddress
        from redis_worker.service.service import http_server

        try:
            server = http_server(str(HttpAddress(http.host, http.port)), http.token, http.origins)
            server.metrics = self._metrics
            fleet = None if home is None else address_of(home)
            await self._serving.enter_async_context(server.answering(self._service, self._address, fleet))
        except ConfigurationError as error:
            if strict:
                raise
            logger.error("%s; the parts run without HTTP", error)
            return
        self._http = http
        self._server = server

    def _address(self, consuming: Consuming) -> Address | None:
        return self._addresses.get(consuming.part)
