"""`redis-worker cron`: the jobs of a file, listed and run by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from redis_worker.embedded import EmbeddedServer
from tests.support import ROOT, Queue
from tests.test_supervisor import File


@pytest.fixture
def file(tmp_path: Path, server: EmbeddedServer) -> File:
    return File(tmp_path, server.url)


def job(file: File, name: str, function: str, more: str = "") -> str:
    arguments = f'arguments = {{ marks = "{file.marks}" }}'
    return f'[cron.{name}]\nschedule = "0 3 * * *"\njob = "tests.parts:{function}"\n{arguments}\n{more}\n'


def cron(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "redis_worker", "cron", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


async def test_a_job_is_run_by_hand_and_listed(file: File, queue: Queue) -> None:
    file.write(
        '[cron]\ntimezone = "Asia/Shanghai"',
        job(file, "tick", "tick"),
        job(file, "broken", "fails_to_tick"),
        f'[cron.pushing]\nschedule = "*/5 * * * *"\npush = {{ input = "{queue.keys.waiting}", task = [1, 2] }}',
    )
    path = str(file.path)
    ran = cron("run", "tick", path)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"tick: success after \d\.\d{3} s\n", ran.stdout)
    assert file.left() == ["tick"]

    failed = cron("run", "broken", path)
    assert failed.returncode == 1
    assert "broken: error after" in failed.stdout
    assert "RuntimeError: no tick" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr

    assert cron("run", "pushing", path).returncode == 0
    [pushed] = await queue.waiting()
    assert json.loads(pushed)["task"] == [1, 2]

    listed = cron("list", path)
    assert listed.returncode == 0, listed.stderr
    heading, *rows = listed.stdout.splitlines()
    assert heading.split() == ["job", "schedule", "zone", "due", "last", "outcome", "duration", "error"]
    assert [row.split()[0] for row in rows] == ["tick", "broken", "pushing"]
    assert "success by hand" in rows[0]
    assert "03:00:00+08:00, in " in rows[0]
    assert "error by hand" in rows[1]
    assert "RuntimeError: no tick" in rows[1]
    told = [json.loads(line) for line in cron("list", path, "--json").stdout.splitlines()]
    assert [each["outcome"] for each in told] == ["success by hand", "error by hand", "success by hand"]
    await queue.redis.delete(*[key async for key in queue.redis.scan_iter("*:cron*")])  # how they stand is kept


def test_what_is_wrong_is_one_sentence(file: File) -> None:
    file.write(job(file, "tick", "tick"), job(file, "tock", "tick", "enable = false"))
    path = str(file.path)
    for name, because in (
        ("tic", "no cron job 'tic': did you mean tick?"),
        ("tock", "the cron job 'tock' does not run: enable = false"),
    ):
        ran = cron("run", name, path)
        assert (ran.returncode, ran.stderr) == (2, f"Error: {path}: {because}\n")
    file.write(job(file, "tick", "no_such_function"))
    ran = cron("run", "tick", path)
    assert ran.returncode == 2
    assert "has no function 'no_such_function'" in ran.stderr


def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    file = File(tmp_path, "redis://127.0.0.1:1")
    file.write(job(file, "tick", "tick"))
    for command in (["list"], ["run", "tick"]):
        ran = cron(*command, str(file.path))
        assert ran.returncode == 3
        assert ran.stderr.count("\n") == 1, ran.stderr
        assert "no Redis at redis://127.0.0.1:1" in ran.stderr
