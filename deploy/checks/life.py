"""The life of containers: start, health, load, SIGTERM under load, exit 0 within the grace period, nothing lost."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from deploy.checks.compose import Stack, check_compose, stack
from deploy.checks.container import Container
from deploy.checks.image import build, build_base, storage
from deploy.checks.running import BUILD, CheckFailed, say

_TASKS = 3000
_INPUT, _OUTPUT = "fib:input", "fib:output"
_APP = '''
import asyncio

async def slow(arguments):
    """Take 20 to 200 ms, and return the sum."""
    await asyncio.sleep(0.02 * (1 + arguments[0] % 10))
    return sum(arguments)
'''


def check_containers() -> None:
    """Build the image, and run the services of the Compose file in containers."""
    model = check_compose()
    with storage() as buildah:
        build_base(buildah)
        worker, examples = (build(buildah, target) for target in ("worker", "examples"))
        settings = buildah.settings(worker)
        _check_settings(settings)
        with stack(model, buildah.mounted(worker), settings) as services:
            _check_life(services)
        with stack(model, buildah.mounted(examples), buildah.settings(examples)) as services:
            _check_gateway(services)
            _check_taskgraph(services)


def _check_settings(settings: dict[str, Any]) -> None:
    found = (settings["User"], settings["StopSignal"], settings["Entrypoint"], settings["Healthcheck"]["Test"])
    if found != ("10001:10001", "SIGTERM", ["redis-worker"], ["CMD", "redis-worker", "health"]):
        raise CheckFailed(f"the image has other settings: {found}")


def _check_life(services: Stack) -> None:
    """Run the service `worker` with a function from /app, stop it under load, and have another one do the rest."""
    test, grace, redis = services.test("worker"), services.grace("worker"), services.redis
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        Path(folder).chmod(0o755)
        Path(folder, "jobs.py").write_text(_APP)
        more: dict[str, Any] = {
            "env": {"REDIS_WORKER_PROCESSOR": "jobs:slow", "REDIS_WORKER_CONCURRENCY": "64"},
            "app": Path(folder),
        }
        with services.container("worker", **more) as first:
            seconds = first.until(lambda: first.healthy(test), "the worker to be ready")
            say(f"container: ready after {seconds:.1f} s, by its own health check")
            _check_confinement(first)
            redis.rpush(_INPUT, *(json.dumps({"id": id, "task": [id, 1]}) for id in range(_TASKS)))
            first.until(lambda: redis.hlen(_OUTPUT) > _TASKS // 10, "some results")
            code, seconds = first.stop(grace)
            done, waiting = redis.hlen(_OUTPUT), redis.llen(_INPUT)
            if code or done == _TASKS or done + waiting != _TASKS:
                raise CheckFailed(f"container: exit code {code}, {done} done, {waiting} waiting:\n{first.log}")
            say(f"container: SIGTERM under load: exit code 0 after {seconds:.1f} s; {done} done, {waiting} waiting")
        with services.container("worker", **more) as second:
            second.until(lambda: redis.hlen(_OUTPUT) == _TASKS, "the rest of the results")
            code, _ = second.stop(grace)
    right = {str(id): {"status": "success", "result": id + 1} for id in range(_TASKS)}
    if code or {id: json.loads(text) for id, text in redis.hgetall(_OUTPUT).items()} != right:
        raise CheckFailed(f"container: exit code {code}, and other results than the tasks have")
    say(f"container: another one does the rest: {_TASKS} of {_TASKS}, nothing lost")


def _check_confinement(container: Container) -> None:
    """Check that the command is process 1, without rights, on a read-only file system, and without a shell."""
    status = dict(line.split(":\t", 1) for line in container.execute("cat", "/proc/1/status").stdout.splitlines())
    program = container.execute("cat", "/proc/1/cmdline").stdout
    rights = (status["Uid"].split()[0], status["CapEff"].strip("0"), status["NoNewPrivs"])
    writes = container.execute("python", "-c", "open('/opt/redis-worker/x', 'w')").stderr
    try:
        shell = container.execute("/bin/sh", "-c", "exit 0").returncode
    except subprocess.SubprocessError:
        shell = 1
    if "redis-worker" not in program or rights != ("10001", "", "1") or "Read-only" not in writes or not shell:
        raise CheckFailed(f"container: process 1 is {program!r}; uid, rights: {rights}; {writes}; shell {shell}")


def _check_gateway(services: Stack) -> None:
    """Run the gateway, and its sender; each message must be handled."""
    with services.container("gateway") as gateway:
        gateway.until(lambda: gateway.healthy(services.test("gateway")), "the gateway to be healthy")
        sent = gateway.execute("python", "-m", "examples.gateway_worker", "send")
        if sent.returncode:
            raise CheckFailed(f"gateway: the sender fails:\n{sent.stderr}")
        gateway.until(lambda: services.redis.hlen("gateway:handled") >= _HANDLED, f"{_HANDLED} handled messages")
        gateway.until(lambda: gateway.healthy(["CMD", "redis-worker", "health", "--ready"]), "the gateway to be ready")
        code, seconds = gateway.stop(services.grace("gateway"))
    if code:
        raise CheckFailed(f"gateway: exit code {code}:\n{gateway.log}")
    say(f"compose: the gateway is healthy, handles its {_HANDLED} messages, and ends with 0 after {seconds:.1f} s")


def _check_taskgraph(services: Stack) -> None:
    """Run the TaskGraph pair; the graph gets the results of the worker."""
    with services.container("taskgraph-worker") as worker:
        worker.until(lambda: worker.healthy(services.test("taskgraph-worker")), "the graph's worker to be ready")
        with services.container("taskgraph") as graph:
            code = graph.ended(60)
            if code or "fibonacci(25) = 75025" not in graph.log:
                raise CheckFailed(f"taskgraph: exit code {code}:\n{graph.log}\n{worker.log}")
        code, _ = worker.stop(services.grace("taskgraph-worker"))
    if code:
        raise CheckFailed(f"taskgraph: the worker ends with {code}:\n{worker.log}")
    say("compose: the TaskGraph gets the results of the worker in the other container")


# Messages that the sender of the example publishes under different ids, without those that are refused.
_HANDLED = 22
