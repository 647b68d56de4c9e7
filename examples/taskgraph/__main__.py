"""A celestialflow TaskGraph with its tasks run by `redis-worker run`, in another process.

    pip install 'redis-worker[embedded]' celestialflow==3.2.2
    python -m examples.taskgraph

    source --> transport ----> ack --> collect      the graph: transport sends ids to ack
                   |            ^
              Redis list    Redis hash
                   v            |
                  redis-worker run                  any number of workers, on any number of machines

It uses the server at REDIS_URL, or starts one if that is not set. With REDIS_WORKER_INPUT and REDIS_WORKER_OUTPUT it
is the graph alone, for workers that run elsewhere on these keys (deploy/compose).
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

try:
    from celestialflow import TaskChain, TaskRedisAck, TaskRedisTransport, TaskStage
except ModuleNotFoundError:
    raise SystemExit("This example needs celestialflow: pip install celestialflow==3.2.2") from None

from redis_worker import redis_url_from_environment
from redis_worker.embedded import EmbeddedServer

TASKS: list[Any] = [*range(1, 26), 300, -1, "x"]

# Every run of a graph numbers its tasks from 0. Runs may share keys one after the other, but not at the same
# time, nor after an interrupted run: the next run would take its results for its own.
RUN = secrets.token_hex(4)
INPUT = os.environ.get("REDIS_WORKER_INPUT") or f"taskgraph:{RUN}:input"
OUTPUT = os.environ.get("REDIS_WORKER_OUTPUT") or f"taskgraph:{RUN}:output"


def compute(url: str) -> tuple[list[Any], dict[Any, str]]:
    """Send TASKS through a graph. Return the results in the order of the tasks, and the errors by task."""
    server = server_options(url)
    results: list[Any] = []

    source = TaskStage("source", func=lambda task: task)
    transport = TaskRedisTransport("transport", key=INPUT, **server)
    # Serial, so that the id of a task is its index in TASKS; the default is four threads.
    transport.set_execution_mode("serial")
    # Another worker recovers the tasks of a killed one up to 15 s later; ack's default timeout is 10 s, and 0
    # waits for ever.
    ack = TaskRedisAck("ack", key=OUTPUT, timeout=30, **server)
    # Without the check: F(1) and F(2) are both 1, and the second would be dropped as a duplicate.
    collect = TaskStage("collect", func=results.append, enable_duplicate_check=False)

    graph = TaskChain([source, transport, ack, collect], log_level="CRITICAL")
    graph.start_chain({"source": TASKS})

    errors: dict[Any, str] = {}
    for (error, _stage), ids in graph.get_fail_by_error_dict().items():
        errors |= {TASKS[id]: error for id in ids}
    return results, errors


def server_options(url: str) -> dict[str, Any]:
    """Return the server options of celestialflow's stages."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or parts.username:
        raise SystemExit("celestialflow's stages need a REDIS_URL like redis://[:password@]host[:port][/db]")
    return {
        "host": parts.hostname or "localhost",
        "port": parts.port or 6379,
        "db": int(parts.path.strip("/") or 0),
        "password": unquote(parts.password) if parts.password else None,
    }


@contextmanager
def worker(url: str) -> Iterator[None]:
    """Run a worker during the block."""
    command = [sys.executable, "-m", "redis_worker", "run", "--input", INPUT, "--output", OUTPUT]
    command += ["--processor", "fibonacci", "--log-level", "error"]
    # Every user of the machine can read a command line, and the URL may contain a password.
    with subprocess.Popen(command, env=os.environ | {"REDIS_WORKER_URL": url}) as process:
        try:
            yield
        finally:
            process.terminate()  # a graceful stop, for which the block waits


def main() -> None:
    with ExitStack() as stack:
        if os.environ.get("REDIS_WORKER_INPUT"):
            url = redis_url_from_environment()
        else:
            url = os.environ.get("REDIS_URL") or stack.enter_context(EmbeddedServer()).url
            stack.enter_context(worker(url))
        # A graph always writes its log and its failures to ./logs and ./fallback.
        stack.enter_context(chdir(stack.enter_context(tempfile.TemporaryDirectory())))
        results, errors = compute(url)

    succeeded = [task for task in TASKS if task not in errors]
    for task, result in zip(succeeded, results, strict=True):
        print(f"fibonacci({task!r}) = {result}")
    for task, error in errors.items():
        print(f"fibonacci({task!r}): {error}")


if __name__ == "__main__":
    main()
