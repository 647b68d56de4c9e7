"""Type checkers know the arguments and the results of functions: mypy and pyright find the same mistakes."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PROGRAM = """
from redis_worker import Handle, TaskQueue, chain, group

queue = TaskQueue("redis://localhost", "mail")


@queue.task(retries=3)
async def send(to: str, *, copies: int = 1) -> int:
    return len(to)


@queue.task
def plain(number: int) -> str:
    return str(number)


@queue.task
def summed(numbers: list[int], start: int = 0) -> int:
    return sum(numbers, start)


async def right() -> None:
    handle: Handle[int] = await send.submit("a", copies=2)
    number: int = await handle.result(timeout="1s")
    text: str = plain(number)
    length: int = await send(text)
    other: Handle[str] = plain.options(delay=1, id="x").submit_sync(length)
    handles: list[Handle[str]] = await plain.submit_many([(1,), plain.call(2)])
    print(other, handles)
    waits: Handle[str] = await plain.submit(handle.as_input)
    last: Handle[str] = await chain(send.call("a"), plain, send, plain.options(retries=1)).submit()
    several: list[Handle[int]] = await group(send.call("a"), chain(plain.call(1), send)).submit()
    total: Handle[int] = await chain(group(send.call("a"), send.call("b")), summed).submit()
    print(waits, last, several, total)


async def wrong() -> None:
    await send.submit(1)  # WRONG
    await send.submit("a", 2)  # WRONG
    await send.submit("a", copy=2)  # WRONG
    await send.options(delay=1).submit()  # WRONG
    plain.submit_sync("1")  # WRONG
    plain("1")  # WRONG
    text: str = await (await send.submit("a")).result()  # WRONG
    plain.options(dealy=1)  # WRONG
    await send.submit((await send.submit("a")).as_input)  # WRONG
    await chain(send.call("a"), send).submit()  # WRONG
    await chain(group(send.call("a")), plain).submit()  # WRONG
    plain.options(after="id")  # WRONG
    print(text)
"""
WRONG = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# WRONG")}


def test_without_the_extra_one_sentence_names_it() -> None:
    program = "import sys; sys.modules['msgspec'] = None; from redis_worker import TaskQueue"
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "redis_worker.vocabulary.errors.ConfigurationError: functions as tasks need the extra `functions` (msgspec is "
        "missing): pip install 'redis-worker[functions]'"
    )


@pytest.mark.parametrize("checker", ["mypy", pytest.param("pyright", marks=pytest.mark.long)])
def test_the_checkers_find_each_mistake_and_no_other(checker: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    arguments = ["--strict", "--no-error-summary", f"--cache-dir={tmp_path / 'cache'}"] if checker == "mypy" else []
    command = [sys.executable, "-m", checker, *arguments, str(file)]
    env = os.environ | {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=env, capture_output=True, text=True)
    if checker == "pyright" and "error:" not in done.stdout:
        pytest.skip(f"pyright cannot run, it needs node: {(done.stdout + done.stderr).strip()[-300:]}")
    found = {int(line) for line in re.findall(r"program\.py:(\d+)(?::\d+)?(?:: | - )error", done.stdout)}
    assert found == WRONG, done.stdout + done.stderr
