"""Programs that name their own functions as `main:tick`: the module that runs is used, and not a second copy of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, ROOT

# It writes a mark whenever it is imported, and its functions show whether they are those of the program that runs.
MAIN = """
import asyncio, os, sys, pathlib

def mark(text):
    with pathlib.Path(os.environ["T_MARKS"]).open("a") as file:
        file.write(text + chr(10))

mark(f"import {__name__}")
state = "as imported"

def work(arguments):
    mark(f"work {state}")
    return 1

def heavy(arguments):
    mark(f"work {state}")
    return 1

async def daemon(stop):
    mark(f"work {state}")

async def main():
    from redis_worker import Supervisor, TaskClient, WorkerPool
    url = os.environ["T_URL"]
    if sys.argv[1] == "file":
        await Supervisor.from_file("workers.toml", url=url).run()
        return
    async with WorkerPool(url, "m:in", "m:out", "list", sys.argv[1], execution=sys.argv[2]), TaskClient(
        url, "m:in", "m:out"
    ) as client:
        await client.run([1], 60)

if __name__ == "__main__":
    state = "of the program"
    asyncio.run(main())
"""

Run = Callable[..., tuple[list[str], str]]


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def run(tmp_path: Path, server: EmbeddedServer, redis: Any) -> Run:
    """Runs `main.py`, by a command; returns its marks, and its standard error."""
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "main.py").write_text(MAIN)

    def run(*command: str) -> tuple[list[str], str]:
        marks = tmp_path / "marks"
        ended = subprocess.run(
            [sys.executable, "-W", "error", *command],
            cwd=tmp_path,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "T_URL": server.url,
                "T_MARKS": str(marks),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return marks.read_text().splitlines() if marks.exists() else [], ended.stderr

    return run


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (("main.py",), "main:work"),
        (("./main.py",), "main:work"),
        (("main.py",), "__main__:work"),
        (("shop/main.py",), "shop.main:work"),
        (("-m", "main"), "main:work"),
        (("-m", "shop.main"), "shop.main:work"),
    ],
)
def test_the_program_that_runs_is_not_imported_again(run: Run, command: tuple[str, ...], place: str) -> None:
    assert run(*command, place, "thread") == (["import __main__", "work of the program"], "")


def test_a_daemon_of_a_file_is_that_of_the_program(run: Run, tmp_path: Path) -> None:
    (tmp_path / "workers.toml").write_text('[daemons.d]\nrun = "main:daemon"\nrestart = "never"')
    assert run("main.py", "file")[0] == ["import __main__", "work of the program"]


def test_a_process_of_its_own_imports_the_module_once_and_does_not_run_the_program(run: Run, tmp_path: Path) -> None:
    (tmp_path / "workers.toml").write_text('[daemons.d]\nrun = "main:daemon"\nrestart = "never"\nprocesses = 1')
    assert run("main.py", "file")[0] == ["import __main__", "import main", "work as imported"]
    (tmp_path / "marks").unlink()
    (tmp_path / "workers.toml").write_text('[daemons.d]\nrun = "__main__:daemon"\nmax_restarts = 0\nprocesses = 1')
    marks, log = run("main.py", "file")
    assert marks == ["import __main__"]
    assert "__main__ is a program of redis_worker here; name the module by its file's name" in log


def test_a_processor_in_a_process_imports_the_module_once(run: Run) -> None:
    """As multiprocessing has it: under a name of its own, so that the program does not run."""
    marks, log = run("main.py", "main:heavy", "process")
    assert (marks, log) == (["import __main__", "import __mp_main__", "work as imported"], "")


def test_another_module_of_the_same_name_is_another_module(run: Run, tmp_path: Path) -> None:
    """`shop/main.py` runs, and names `main`, which lies in the working directory."""
    marks, log = run("shop/main.py", "shop.main:work", "thread")
    assert (len(marks), log) == (2, "")
    (tmp_path / "marks").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "main.py").write_text(MAIN)
    marks, log = run("other/main.py", "shop.main:work", "thread")
    assert (marks, log) == (["import __main__", "import shop.main", "work as imported"], "")


def test_a_function_that_the_program_has_not_come_to_yet(run: Run, tmp_path: Path) -> None:
    text = MAIN.replace("def work(arguments)", "def later(arguments)") + "\n\ndef work(arguments): ...\n"
    (tmp_path / "main.py").write_text(text)
    _, log = run("main.py", "main:work", "thread")
    assert "module main has no function 'work'; it is the running program, and may define it further down" in log
