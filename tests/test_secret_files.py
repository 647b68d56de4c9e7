"""Secrets in files, as Docker and Kubernetes mount them: NAME_FILE names the file of NAME."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_worker import ConfigurationError
from redis_worker.cli.main import cli
from redis_worker.embedded import EmbeddedServer
from redis_worker.environment import SECRETS, environment_and_file, url_of
from redis_worker.file.mistakes import FileMistakes
from redis_worker.file.reading import read_plan
from tests.support import PATIENCE, ROOT


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("s3Cr3t/ü\n")
    return path


@pytest.fixture(scope="module")
def locked(first_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(first_server.binary, options=("--requirepass", "s3Cr3t/ü")) as running:
        yield running


def test_a_command_logs_in_with_a_password_from_a_file(locked: EmbeddedServer, secret: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "redis_worker", "push", "--input", "in", "[1]"],
        env=os.environ
        | {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(locked.port), "REDIS_PASSWORD_FILE": str(secret)}
        | {"REDIS_PASSWORD": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stderr.decode()) == (0, "")


@pytest.mark.parametrize("name", SECRETS)
def test_each_variable_that_may_hold_a_secret(name: str, secret: Path) -> None:
    assert environment_and_file({f"{name}_FILE": str(secret)})[name] == "s3Cr3t/ü"
    Path(".env").write_text(f"{name}_FILE={secret}\n")
    assert environment_and_file({})[name] == "s3Cr3t/ü"
    assert environment_and_file({name: "given"})[name] == "given"  # the environment before .env
    with pytest.raises(ConfigurationError, match=f"{name} and {name}_FILE are both set"):
        environment_and_file({name: "given", f"{name}_FILE": str(secret)})


def test_no_secret_option_is_forgotten() -> None:
    secret = {"url", "http_token", "dsn", "properties"}
    variables = {
        variable
        for command in cli.commands.values()
        for parameter in command.params
        if parameter.name in secret
        for variable in ([parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or [])
    }
    assert variables <= {*SECRETS}
    assert len(variables) > len(secret)


def test_the_environment_names_the_server_before_env(secret: Path) -> None:
    secret.write_text("redis://environment:1")
    Path(".env").write_text("REDIS_WORKER_URL=redis://file:1\n")
    assert url_of(environment_and_file({"REDIS_URL_FILE": str(secret)})) == "redis://environment:1"


def test_variables_of_a_file_of_parts(secret: Path) -> None:
    secret.write_text("redis://h:7/0\n")
    Path("workers.toml").write_text(
        '[redis]\nurl = "${CACHE}"\n[pools.a]\ninput = "in"\noutput = "out"\nprocessor = "sum"\n'
    )
    assert read_plan("workers.toml", environment={"CACHE_FILE": str(secret)}).url == "redis://h:7/0"
    with pytest.raises(FileMistakes, match="the file that CACHE_FILE names cannot be read: No such file") as mistakes:
        read_plan("workers.toml", environment={"CACHE_FILE": "s3Cr3t"})
    assert "s3Cr3t" not in str(mistakes.value)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "cannot be read: No such file"), (b"\n", "is empty"), (b"\xff", "is not UTF-8")]
)
def test_a_file_without_a_secret(secret: Path, content: bytes | None, reason: str) -> None:
    secret.unlink() if content is None else secret.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"the file that REDIS_URL_FILE names {reason}"):
        environment_and_file({"REDIS_URL_FILE": str(secret)})
