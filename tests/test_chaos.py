"""The chaos driver: what it says of the workers as they are, and of one whose fencing is taken out."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from redis_worker.chaos.faults import KINDS, schedule
from redis_worker.chaos.modes import TopicsMode
from redis_worker.chaos.options import Options
from redis_worker.embedded import EmbeddedServer
from tests.processes import alive, descendants
from tests.support import ROOT, ended_in_time

# Tests run in the background of a shell inherit that SIGINT is ignored.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from redis_worker.cli.main import main
main(["chaos", *sys.argv[1:]])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The temporary folder of the runs: nothing may stay there."""
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        cwd=folder.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def chaos(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a run that leaves no file behind."""
    with started(folder, *arguments) as process:
        output, errors = process.communicate(timeout=200)
    assert list(folder.iterdir()) == []
    return process.returncode, output, errors


def outcome(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a run says that keeps all promises."""
    code, output, errors = chaos(folder, *arguments, "--json")
    assert (code, errors) == (0, ""), output + errors
    found: dict[str, Any] = json.loads(output)
    assert found["complete"]
    assert found["violations"] == []
    return found


def names(kinds: tuple[str, ...]) -> list[str]:
    return [argument for kind in kinds for argument in ("--fault", kind)]


def test_nothing_is_lost_and_the_report_shows_the_run(folder: Path, tmp_path: Path) -> None:
    kinds = ("kill", "kill-parent", "terminate", "restart", "cut", "half")
    page = tmp_path / "report.html"
    run = ("--minutes", "0.08", "--tasks", "1200", "--seed", "7", "--report", str(page), *names(kinds))

    found = outcome(folder, *run)

    assert (found["pushed"], found["answered"], found["dead"]) == (1200, 1197, 3)
    assert (found["lost"], found["written_twice"]) == (0, 0)
    assert sorted(fault["kind"] for fault in found["faults"]) == sorted(kinds)
    assert "--seed 7" in found["repeat"]
    text = page.read_text()
    assert all(f">{kind}</text>" in text for kind in kinds)
    assert "All promises are kept" in text
    assert not re.search(r"(src|href)=|url\(|@import|<script", text), "it needs something from elsewhere"


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("mode", ["pool", "topics", "at-most-once", "cron", "cluster"])
def test_each_mode_keeps_its_promises_under_all_faults(folder: Path, mode: str, seed: int) -> None:
    found = outcome(folder, "--minutes", "0.3", "--tasks", "6000", "--seed", str(seed), "--mode", mode)

    counts = {name: found.get(name, 0) for name in ("pushed", "answered", "completed", "dead", "lost")}
    if mode == "cron":
        assert found["instants"] >= 2 * found["runs"] - 2 > 0
        assert (found["fired_twice"], found["left_out"]) == (0, 0)
        return
    assert counts["pushed"] == 6000
    assert sum(counts.values()) == 2 * counts["pushed"]
    assert found["completed_twice" if mode == "topics" else "written_twice"] == 0
    if mode != "at-most-once":
        assert counts["lost"] == 0
        assert found["delivered_again"] > 0, "no worker held a task: this shows nothing"


@pytest.mark.long
def test_a_replica_takes_over_and_hands_back(folder: Path) -> None:
    run = ("--minutes", "0.3", "--tasks", "6000", "--replica", "--fault", "failover", "--fault", "kill")
    found = outcome(folder, *run)

    assert (found["pushed"], found["lost"], found["written_twice"]) == (6000, 0, 0)
    assert {fault["kind"] for fault in found["faults"]} == {"failover", "kill"}


@pytest.mark.long
def test_a_worker_without_its_fencing_is_found_out(folder: Path) -> None:
    run = ("--minutes", "0.1", "--tasks", "1000", "--seed", "1", "--fault", "freeze")
    assert outcome(folder, *run)["delivered_again"] > 0

    code, output, _ = chaos(folder, *run, "--processor", "tests.unfenced:unfenced")

    assert code == 1, output
    assert re.search(r"written twice [1-9]", output), output
    [history] = re.findall(r"History of task (t\d+):((?:\n +\d.*)+)", output)
    assert f"task {history[0]} was written twice" in output
    steps = [line.split(" s  ")[1] for line in history[1].splitlines() if line]
    assert next(step for step in steps if not step.startswith("(")) == "waiting"
    assert any("SIGSTOP" in step for step in steps)
    assert steps.index("answered") < steps.index("answered and written twice")


@pytest.mark.long
def test_a_server_of_the_users_keeps_its_own_keys_and_gets_no_others(folder: Path, server: EmbeddedServer) -> None:
    async def keys() -> list[bytes]:
        async with Redis.from_url(server.url) as redis:
            await redis.set("mine", 1)
            return sorted(await redis.keys("*"))

    before = asyncio.run(keys())
    code, output, errors = chaos(folder, "--url", server.url, "--yes", "--minutes", "0.2", "--tasks", "3000")

    assert (code, errors) == (0, ""), output
    assert "left out, because the server is not private: restart, crash, client-kill" in output
    assert "pushed 3000, answered 2993, dead 7" in output
    assert asyncio.run(keys()) == before
    server_client = SyncRedis.from_url(server.url)
    server_client.delete("mine")
    server_client.close()


@pytest.mark.long
@pytest.mark.parametrize("mode", ["pool", "topics"])
def test_ctrl_c_ends_it_and_leaves_nothing_behind(folder: Path, mode: str) -> None:
    with started(folder, "--minutes", "5", "--mode", mode, "--tasks", "5000") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "tasks done" in line:
                break
        children = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)

    assert process.returncode == 130, output + errors
    assert re.search(r"pushed \d+, .* lost 0", output)
    assert "Interrupted. To repeat it: redis-worker chaos" in output
    assert len(children) > 4
    assert ended_in_time(lambda: not alive(children))
    assert ended_in_time(lambda: not list(folder.iterdir()))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--processor", "nosuch"), 2, "unknown processor 'nosuch'"),
        (("--mode", "topics", "--processor", "nosuch:fn"), 2, "no module named 'nosuch'"),
        (("--task", "{"), 2, "the task '{' is not JSON"),
        (("--fault", "nosuch"), 2, "the mode pool has no fault 'nosuch'; it has kill,"),
        (("--fault", "failover"), 2, "needs --replica"),
        (("--replica", "--mode", "cluster"), 2, "--replica is for a private server"),
        (("--url", "redis://127.0.0.1:1"), 2, "no terminal to ask for confirmation: use --yes"),
        (("--url", "nonsense", "--yes"), 2, "the Redis URL must begin with"),
        (("--url", "redis://127.0.0.1:1", "--yes"), 3, "no Redis at redis://127.0.0.1:1"),
        (("--url", "redis://127.0.0.1:1", "--yes", "--mode", "cron"), 2, "the mode cron needs a private server"),
        (("--report", "/nowhere/report.html"), 2, "the report cannot be written to /nowhere/report.html"),
    ],
)
def test_wrong_wishes_get_one_sentence(folder: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    ended, output, errors = chaos(folder, *arguments)

    assert (ended, output) == (code, "")
    assert words in errors
    assert errors.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in errors


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**9),
    kinds=st.sets(st.sampled_from(sorted(KINDS)), min_size=1),
    seconds=st.floats(3, 600),
)
def test_a_seed_gives_the_same_faults_and_each_kind_at_least_once(seed: int, kinds: set[str], seconds: float) -> None:
    faults = schedule(seed, sorted(kinds), seconds, [0, 1], [2])

    assert faults == schedule(seed, sorted(kinds), seconds, [0, 1], [2])
    assert {fault.kind for fault in faults} == kinds
    assert all(0 <= fault.at < seconds for fault in faults)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    for fault in faults:
        kind = KINDS[fault.kind]
        assert kind.least <= fault.seconds <= kind.most
        assert fault.victim in {"fleet": {2}, "worker": {0, 1}}.get(kind.target, {0, 1, 2})


def test_a_seed_gives_the_same_messages(tmp_path: Path) -> None:
    def made(seed: int) -> list[Any]:
        return TopicsMode(Options("topics", 500, 10.0, seed), "chaos", tmp_path).make(0, 500)

    assert made(3) == made(3) != made(4)
