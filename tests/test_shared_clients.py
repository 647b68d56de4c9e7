"""One client, made once, used by any thread, any event loop and any process: each call gets its own reply."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from redis_worker.embedded import EmbeddedServer
from tests import shared_clients
from tests.support import ROOT, Queue, Topic

# Since 3.12 Python warns of every fork of a process that has threads.
_FORKS = ("-W", "ignore::DeprecationWarning")

PROGRAMS = [
    shared_clients.forks_of_a_program_without_a_loop,
    shared_clients.forks_of_a_program_that_has_not_used_its_client_yet,
    shared_clients.forks_in_a_running_loop,
    shared_clients.forks_with_a_client_of_the_callers,
    shared_clients.forks_while_a_pool_runs,
    shared_clients.workers_made_before_a_fork,
    shared_clients.names_after_a_fork,
    shared_clients.threads_that_share_a_client,
    shared_clients.a_client_that_is_forgotten,
    shared_clients.one_client_and_several_loops,
]


@pytest.fixture(scope="session")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.mark.parametrize("program", [program.__name__ for program in PROGRAMS])
async def test_a_client_that_is_made_once(server: EmbeddedServer, queue: Queue, topic: Topic, program: str) -> None:
    """Programs whose own assertions hold, and which write nothing to standard error: no warning, no traceback."""
    results = {number: json.dumps({"status": "success", "result": number}) for number in range(shared_clients.RESULTS)}
    await queue.redis.hset(queue.keys.output, mapping=results)
    arguments = [program, server.url, queue.keys.waiting, queue.keys.output, topic.name]
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", *_FORKS, "-m", "tests.shared_clients", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    await queue.redis.delete(queue.keys.delayed)
