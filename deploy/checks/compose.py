"""The Compose file: read by Compose's own package, and its services of this project run with their settings."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from deploy.checks.container import Container
from deploy.checks.running import BUILD, DEPLOY, CheckFailed, go_programs, need, run, say, tool

PASSWORD = "s3Cr3t"
_FILE = DEPLOY / "compose" / "compose.yaml"
_PATIENCE = 20.0
_DATABASE = "postgresql://covid:covid@postgres:5432/covid"
_SETTINGS = {
    "REDIS_PASSWORD": PASSWORD,
    "POSTGRES_PASSWORD": "covid",
    "POSTGRES_DSN": _DATABASE,
    "GRAFANA_PASSWORD": "admin",
}


def check_compose() -> dict[str, Any]:
    """Validate the file, and return its services and other parts, all profiles included."""
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", _FILE)
    model: dict[str, Any] = json.loads(run(go_programs() / "checks", _FILE.name, env=_SETTINGS, cwd=_FILE.parent))
    services = model["services"]
    for name, service in services.items():
        for other, needed in service.get("depends_on", {}).items():
            if needed["condition"] == "service_healthy" and not services[other].get("healthcheck", {}).get("test"):
                raise CheckFailed(f"compose: {name} waits for the health of {other}, which has no health check")
    for line in (DEPLOY / "compose" / ".env.example").read_text().splitlines():
        name = line.removeprefix("#").partition("=")[0]
        if (
            name.isupper()
            and f"${{{name}" not in _FILE.read_text()
            and f"environment: {name}\n" not in _FILE.read_text()
        ):
            raise CheckFailed(f"compose: .env.example has {name}, which compose.yaml does not use")
    say(f"compose: {len(services)} services, valid by the schema and for Compose's reader")
    return model


class Stack:
    """The services of the Compose file, run in containers without an engine, on one Redis with the file's settings."""

    def __init__(self, model: dict[str, Any], root: Path, image: dict[str, Any], port: int) -> None:
        self._model, self._root, self._image, self.port = model, root, image, port
        self.redis = Redis(port=port, password=PASSWORD, decode_responses=True)

    def container(self, service: str, *, env: Mapping[str, str] | None = None, app: Path | None = None) -> Container:
        """Run a service with `env` besides its own; its ports are others, as all share the network of this machine."""
        settings = self._model["services"][service]
        variables = settings["environment"] | {"REDIS_PORT": str(self.port)} | dict(env or {})
        if "REDIS_WORKER_HTTP" in variables:
            variables["REDIS_WORKER_HTTP"] = f"127.0.0.1:{free_port()}"
        return Container(
            self._root,
            self._image,
            entrypoint=settings.get("entrypoint"),
            command=settings.get("command") or (),
            env=variables,
            secrets={"redis-password": PASSWORD},
            app=app,
            name=service,
        )

    def test(self, service: str) -> list[str]:
        """Return the test of a service's health check."""
        test: list[str] = self._model["services"][service]["healthcheck"]["test"]
        return test

    def grace(self, service: str) -> float:
        """Return the time that Compose gives a service to stop, in seconds."""
        from redis_worker.vocabulary.duration import duration

        seconds = duration(self._model["services"][service]["stop_grace_period"])
        assert seconds is not None
        return seconds


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def stack(model: dict[str, Any], root: Path, image: dict[str, Any]) -> Iterator[Stack]:
    """Start Redis with the settings of the file, and yield the stack once the file's own test finds it healthy."""
    need(("redis-server", "redis-cli"), ("redis-server", "redis-tools"))
    folder, port = Path(tempfile.mkdtemp(dir=BUILD)), free_port()
    settings = folder / "redis.conf"
    content = str(model["configs"]["redis"]["content"]).replace("dir /data", f"dir {folder}")
    settings.write_text(f"{content}\nport {port}\nbind 127.0.0.1\n")
    settings.chmod(0o600)
    running = Stack(model, root, image, port)
    ping = ["redis-cli", "-p", str(port), *running.test("redis")[2:]]
    with subprocess.Popen(["redis-server", str(settings)], stdout=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + _PATIENCE
            password = os.environ | {"REDISCLI_AUTH": PASSWORD}
            while subprocess.run(ping, env=password, capture_output=True, check=False).returncode:
                if time.monotonic() > end or server.poll() is not None:
                    raise CheckFailed("compose: the health check of redis does not succeed")
                time.sleep(0.05)
            yield running
        finally:
            running.redis.close()
            server.terminate()
    shutil.rmtree(folder)
