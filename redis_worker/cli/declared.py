"""Workers declared in Python, named on the command line as `module:name`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import cast

from redis_worker.cli.describing import columns, describe, describe_route
from redis_worker.cli.serving import run_service
from redis_worker.cli.supervising import supervise
from redis_worker.environment import redis_url_from_environment
from redis_worker.file.queues import is_queue
from redis_worker.file.resolving import resolve
from redis_worker.registry import find_object
from redis_worker.service.handlers import Handlers
from redis_worker.service.kafka_worker import KafkaWorker
from redis_worker.service.list_worker import ListWorker
from redis_worker.service.topic_worker import TopicWorker
from redis_worker.supervisor.supervisor import Supervisor
from redis_worker.vocabulary.errors import ConfigurationError

_PLACE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")

Declared = ListWorker | TopicWorker | KafkaWorker | Supervisor


def is_declared(name: str) -> bool:
    """Return True if `name` is a place in a Python module, not a file."""
    return _PLACE.fullmatch(name) is not None and not os.path.exists(name)


def find_declared(name: str, url: str | None) -> Declared:
    """Return the worker at `name`; Handlers become a topic worker at `url` or at the environment's URL.

    Raises ConfigurationError.
    """
    found = find_object("worker", name)
    if isinstance(found, Handlers) and not isinstance(found, TopicWorker):
        worker = TopicWorker(url or redis_url_from_environment())
        worker.include(found)
        return worker
    if is_queue(found):
        return cast("ListWorker", found.worker(redis=url))
    if not isinstance(found, Declared):
        kind = type(found).__name__
        raise ConfigurationError(
            f"the worker {name!r} is of type {kind}; it must be a WorkerPool, TaskQueue, TopicWorker, KafkaWorker, "
            "Supervisor or Handlers"
        )
    if url is not None:
        raise ConfigurationError(
            f"the worker {name!r} names its server itself; --url is only for a file or for Handlers"
        )
    if isinstance(found, Supervisor):
        found.standalone = True
        resolve(found.plan)
    return found


def serve_declared(worker: Declared) -> int:
    """Run `worker` until stopped or done. Returns the exit code. Raises RedisWorkerError."""
    if isinstance(worker, Supervisor):
        return supervise(worker, None)
    return run_service(worker, (line for _, line in _rows(worker)), worker.options.concurrency)


def describe_declared(name: str, worker: Declared) -> Iterator[str]:
    """Yield a line for each part that `worker` would run."""
    if isinstance(worker, Supervisor):
        yield from describe(worker.plan)
        return
    yield f"{name}: this would run"
    yield from columns([list(row) for row in _rows(worker)])


def _rows(worker: ListWorker | TopicWorker | KafkaWorker) -> Iterator[tuple[str, str]]:
    """Yield kind and description of the worker's queue, or of its topics, a row each."""
    if isinstance(worker, TopicWorker):
        yield "topics", f"on {worker.address}"
        yield from (("", describe_route(route)) for route in worker.routes())
    elif isinstance(worker, ListWorker):
        yield "pool", worker.summary
    else:
        how = f"{worker.declaration.name}, {worker.options.concurrency} at once"
        yield "kafka", f"{worker.source}, {how}, on {worker.address}"
