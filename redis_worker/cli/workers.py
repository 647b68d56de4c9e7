"""The work of `redis-worker run` with several processes or --watch: a supervisor over a plan with one pool."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from redis_worker.cli.changes import Watched, sources
from redis_worker.cli.serving import worker_of
from redis_worker.cli.supervising import supervise
from redis_worker.file.plan import HttpSettings, Part, Plan, PoolPart, Supervision, TasksPart
from redis_worker.file.queues import find_queue
from redis_worker.http.address import http_address
from redis_worker.supervisor.supervisor import Supervisor
from redis_worker.vocabulary.errors import PartFailed, RedisWorkerError
from redis_worker.vocabulary.logger import library_logger

logger = library_logger("redis_worker.run")

_OWN = ("input_key", "output_key", "parser", "processor", "queue", "concurrency")
_PLACES = (*_OWN, "http", "http_token", "http_origins", "shutdown_timeout")


def work_in_processes(url: str | None, settings: dict[str, Any], processes: int, folder: Path | None) -> int:
    """Run workers until stopped or done; restart them when a source in `folder` changes. Return the exit code.

    Raises RedisWorkerError; if no worker can work, the error that a worker reported.
    """
    if folder is None:
        # Checks the settings once; with `folder`, each process imports the changed sources.
        worker_of(url, settings)
        if "queue" in settings and isinstance(own := find_queue(settings["queue"]).redis, str):
            url = url or own
    else:
        # Bytecode is compared by size and second, so it may hide the second of two quick changes.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    watching = f", watching {folder}" if folder else ""
    logger.info("%d worker process%s%s", processes, "es" * (processes > 1), watching)
    plans = _plans(_plan(url, settings, processes, folder))
    supervisor = Supervisor(next(plans), None if folder is None else partial(next, plans), standalone=True)
    try:
        return supervise(supervisor, None if folder is None else Watched(partial(sources, folder)), hangup=False)
    except PartFailed as error:
        if isinstance(error.__cause__, RedisWorkerError) and not isinstance(error.__cause__, PartFailed):
            raise error.__cause__ from None
        reasons = "; ".join(part.error for part in supervisor.parts() if part.error)
        raise PartFailed(
            f"the workers of {_name_of(settings)} fail again and again ({reasons}); nothing is lost: other workers "
            "can claim their tasks"
        ) from error


def _name_of(settings: Mapping[str, Any]) -> str:
    name: str = settings["queue"] if "queue" in settings else settings["input_key"]
    return name


def _plan(url: str | None, settings: dict[str, Any], processes: int, folder: Path | None) -> Plan:
    name, http = _name_of(settings), settings["http"]
    address = http_address(http) if http else None
    finite = settings["burst"] or settings["max_tasks"] is not None
    supervision = Supervision(
        restart="on-failure" if finite else "always",
        critical=True,
        restart_backoff=0.5,
        restart_backoff_max=30.0,
        shutdown_timeout=settings["shutdown_timeout"],
        processes=processes,
        reports=True,
    )
    http = settings["http_token"], settings["http_origins"]
    options = {key: value for key, value in settings.items() if key not in _PLACES}
    own = {key: value for key, value in settings.items() if key in _OWN}
    part: Part
    if "queue" in settings:
        part = TasksPart(name=name, url=url, options=options, supervision=supervision, **own)
    else:
        assert url is not None
        part = PoolPart(name=name, url=url, options=options, supervision=supervision, **own)
    return Plan(
        path=f"the source in {folder}" if folder else "redis-worker run",
        name=name,
        url=url,
        parts=(part,),
        http=None if address is None else HttpSettings(address.host, address.port, *http),
        connect_timeout=settings["connect_timeout"],
        shutdown_timeout=settings["shutdown_timeout"],
    )


def _plans(plan: Plan) -> Iterator[Plan]:
    """Yield `plan`, then for each change of the sources a plan with a new part, which after a failure waits."""
    yield plan
    for revision in count(1):
        parts = [
            replace(part, supervision=replace(part.supervision, critical=False, awaits_change=True, revision=revision))
            for part in plan.parts
        ]
        yield replace(plan, parts=tuple(parts))
