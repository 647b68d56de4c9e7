"""The reader of a file: TOML in, plan out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from redis_worker.broker.connection.address import address_of
from redis_worker.environment import environment_and_file, url_of
from redis_worker.file.document import Document, Table, dotted, read_text
from redis_worker.file.entries import Entry, check_worker, read_entries
from redis_worker.file.kafka_entries import complete
from redis_worker.file.lines import KeyPath
from redis_worker.file.mistakes import NO_LINE, FileMistakes, Mistake
from redis_worker.file.parts import Common, parts_of
from redis_worker.file.plan import HttpSettings, Plan
from redis_worker.file.schema import HTTP, KINDS, REDIS, TABLES, WORKER
from redis_worker.file.selection import select
from redis_worker.file.values import shown
from redis_worker.http.address import HttpAddress, http_address
from redis_worker.vocabulary.errors import ConfigurationError


def read_plan(
    path: str | os.PathLike[str],
    text: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    default_url: Callable[[], str] | None = None,
    url: str | None = None,
) -> Plan:
    """Return the plan in a file. Imports no user code and opens no connection; `resolve` imports.

    With `text`, the content is not read from `path`, which only names the file in mistakes. `environment` supplies
    variables: by default the process's environment, then `.env` in the working directory. `only` and `without` select
    and exclude parts ("fibonacci" or "pools.fibonacci"), topics, or kinds ("cron"); `only` replaces the file's own.
    `default_url` returns the Redis URL if the file has none, and is called only if a part needs it; by default the URL
    comes from the environment. `url` overrides [redis]. Raises FileMistakes.
    """
    name = os.fspath(path)
    if text is None:
        text = read_text(name)
    if environment is None:
        try:
            environment = environment_and_file(os.environ)
        except ConfigurationError as error:
            raise FileMistakes(name, [Mistake(NO_LINE, str(error))]) from None
    variables = environment
    document = Document(name, text, variables)
    return _Reader(document, default_url or (lambda: url_of(variables)), url).plan(only, without)


# The URL used to check the valid parts if the file's URL is invalid; nothing connects to it.
_SOMEWHERE = "redis://localhost"


class _Reader:
    def __init__(self, document: Document, default_url: Callable[[], str], given_url: str | None) -> None:
        self._document = document
        self._default_url = default_url
        self._given_url = given_url
        root = document.root(TABLES)
        self._worker = root.table("worker").read(WORKER)
        self._redis = root.table("redis").read(REDIS)
        self._http = root.table("http").read(HTTP)
        check_worker(self._worker)
        self._wants_http = "http" in root and _enabled(self._http) and _enabled(self._worker)
        self._groups, self._entries = read_entries(document, root, self._worker.settings)
        self._check_host()

    def plan(self, only: Sequence[str], without: Sequence[str]) -> Plan:
        """Return the plan. Raises FileMistakes."""
        document = self._document
        select(self._worker, self._groups, self._entries, only, without)
        running = [entry for entry in self._entries if entry.reason is None]
        complete(self._groups["kafka"], [entry.table for entry in running if entry.kind == "kafka"])
        url = self._url(running)
        document.blame_unset(self._idle(running))
        if document.mistakes:
            right = [entry for entry in running if document.is_right(entry.table.path)]
            raise FileMistakes(document.name, document.mistakes, self._plan(right, url or _SOMEWHERE))
        return self._plan(running, url)

    def _plan(self, running: list[Entry], url: str | None) -> Plan:
        """Return a plan of `running`, all valid."""
        document, settings, http = self._document, self._worker.settings, self._http.settings
        app = settings.get("name") or Path(document.name).stem
        common = Common(
            app, settings, url, self._given_url, *(self._groups[kind] for kind in ("topics", "kafka", "cron"))
        )
        times = {key: settings[key] for key in ("connect_timeout", "shutdown_timeout") if key in settings}
        http_settings = HttpSettings(**{key: value for key, value in http.items() if key != "enable"})
        return Plan(
            document.name,
            app,
            url,
            parts_of(running, common),
            http_settings if self._wants_http else None,
            enable=settings.get("enable", True),
            mode=settings.get("mode"),
            left_out=tuple((entry.qualified, entry.reason) for entry in self._entries if entry.reason is not None),
            lines={dotted(path): line for path, line in document.lines.items()},
            variables=document.variables,
            **times,
        )

    def _check_host(self) -> None:
        settings = self._http.settings
        try:
            if "host" in settings:
                http_address(str(HttpAddress(settings["host"], 0)))
        except ConfigurationError:
            self._http.blame("host", f"must be a host or an IP address, got {shown(self._http.values['host'])}")

    def _url(self, running: list[Entry]) -> str | None:
        """Return the URL for parts without their own; look outside the file only if there are any."""
        if self._given_url is None and ("url" in self._redis or not self._needs_url(running)):
            return self._redis.settings.get("url")
        try:
            url = self._given_url or self._default_url()
            address_of(url)
        except ConfigurationError as error:
            self._document.blame_file(str(error))
            return None
        return url

    def _needs_url(self, running: list[Entry]) -> bool:
        return any(entry.uses_redis and not (entry.own_url or "url" in self._groups[entry.kind]) for entry in running)

    def _idle(self, running: list[Entry]) -> Iterator[KeyPath]:
        """Yield the unused tables; their variables need not be set."""
        for entry in self._entries:
            if entry.reason is not None:
                yield entry.table.path
        for kind in KINDS:
            if not any(entry.kind == kind for entry in running):
                yield (kind,)
        if self._given_url is not None or not self._needs_url(running):
            yield ("redis",)
        if not self._wants_http:
            yield ("http",)


def _enabled(group: Table) -> bool:
    return group.settings.get("enable") is not False
