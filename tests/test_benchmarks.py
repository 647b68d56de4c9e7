"""The benchmark as a program: it runs to its end and prints every figure. What the figures are is not asked."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import PARTS
from benchmarks.report import Row, Verdict, judged, table

VERDICTS = {verdict.value for verdict in Verdict}
ROOT = Path(__file__).parent.parent

# The rows, and whether each has a target.
ROWS = {
    "drain: bare loop, 200 at a time": False,
    "drain: sum": True,
    "drain: async no-op, concurrency 256": True,
    "drain: sum, with --http": False,
    "drain: sum, in a supervisor": False,
    "drain: bare loop, 1000 at a time": False,
    "drain: sum, at-most-once": False,
    "drain: no-op in 4 threads": True,
    "drain: no-op in 2 processes": True,
    "drain: bare loop, 200 at a time, tasks of 1 kB": False,
    "drain: sum, tasks of 1 kB": True,
    "drain: bare loop, 200 at a time, tasks of 10 kB": False,
    "drain: sum, tasks of 10 kB": True,
    "drain: bare loop, 200 at a time, tasks of 100 kB": False,
    "drain: sum, tasks of 100 kB": True,
    "drain: coroutines end in order, concurrency 10,000": False,
    "drain: coroutines end in random order, concurrency 10,000": True,
    "drain: coroutines end in random order, concurrency 1,000": False,
    "drain: coroutines end in random order, concurrency 100": False,
    "drain: the same sleeps in asyncio alone, in order": False,
    "drain: the same sleeps in asyncio alone, in random order": False,
    "drain: a pool of an async no-op, concurrency 256": False,
    "drain: an async no-op as a function": True,
    "drain: the same beside functions of other kinds": True,
    "drain: the same with unique ids": False,
    "drain: a pool of a no-op in 4 threads": False,
    "drain: a no-op as a function, 4 threads": True,
    "drain: the same beside coroutines, 4 at once": False,
    "drain: functions: mixed queue, each kind in turn, 4 at once": False,
    "drain: a pool of an inline no-op": False,
    "drain: an inline no-op as a function": True,
    "drain: the same beside coroutines, inline": False,
    "drain: functions: an async no-op, no limits": False,
    "drain: functions: under a rate that is never reached": False,
    "drain: functions: 1000 at a time, which are never reached": False,
    "drain: functions: 1000 at a time for each of 100 keys": False,
    "drain: functions: strict priorities": False,
    "drain: functions: weighted priorities": False,
    "long: the same sleeps in asyncio alone": False,
    "long: sleeps of 100 ms, concurrency 10,000": True,
    "long: the same computing in processes alone": False,
    f"long: 1 ms of computing in {min(2, os.cpu_count() or 1)} processes": True,
    "topics: a coroutine in a pool, concurrency 256": False,
    "topics: the same as a handler of a topic": True,
    "slow among fast: wait beyond the ideal, threads that pop": False,
    "slow among fast: wait beyond the ideal, coroutines": True,
    "slow among fast: wait beyond the ideal, threads": True,
    "workers: sum, 1 at once": False,
    "workers: sum, 2 at once": False,
    "backlog: sum, 0 waiting": False,
    "backlog: sum, 10,000 waiting": True,
    "pick-up, median: PING alone, the floor": False,
    "pick-up, median: bare loop, 200 at a time": False,
    "pick-up, median: sum": True,
    "pick-up, median: a waiting TaskClient": True,
    "delayed tasks, lateness at p99": True,
    "delayed messages, lateness at p99": True,
    "memory: idle worker": True,
    "memory: first half of 8,000 tasks": False,
    "memory: second half of 8,000 tasks": False,
    "idle: 20 topics in one worker": True,
    "idle: 5 pools in one program": True,
    "idle: 5 pools in `serve`": True,
    "kafka: bare consumer": False,
    "kafka: no-op": True,
    "kafka: no-op, ordered by partition": False,
    "kafka: async no-op, concurrency 256": False,
    "kafka: batches of 500": False,
    "kafka: rows into PostgreSQL, 500 a batch": False,
    "kafka: memory, database stalled": True,
    "postgres: driver alone, unnest, 500 rows": False,
    "postgres: UpsertSink, 500 rows a batch": True,
    "postgres: driver alone, COPY and merge, 5,000 rows": False,
    "postgres: UpsertSink, 5,000 rows a batch": True,
    "push: events to 100 clients": True,
    "push: latency at p99": False,
    "push: CPU of the server": False,
    "pipeline: bare consumer": False,
    "pipeline: stages alone, batches of 500": False,
    "pipeline: into Redis, batches of 50": True,
    "pipeline: into Redis, batches of 500": False,
    "pipeline: a batch of 50 through the stages, median": True,
    "pipeline: CPU of worker and Redis at a tenth of the rate": True,
    "pipeline: memory of the worker": True,
    "pipeline: recovery, one of 3 consumers killed": True,
    "submit: pipelined RPUSH of tasks": False,
    "submit: submit_many": True,
    "submit: pipelined RPUSH of messages": False,
    "submit: publish_many": True,
    "submit: pipelined RPUSH of a file": False,
    "submit: push --file": True,
    "submit: an awaited RPUSH each": False,
    "submit: publish, one by one": True,
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    # What is set for other workers does not reach those that are measured.
    environment = os.environ | {"REDIS_WORKER_CONCURRENCY": "nonsense", "REDIS_URL": "redis://nowhere.invalid"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_quick_run_prints_every_row() -> None:
    ended = bench("--quick")
    assert ended.returncode == 0, ended.stderr
    cells = [line.split("|")[1:-1] for line in ended.stdout.splitlines() if line.startswith("|")]
    printed = {name.strip(): [cell.strip() for cell in rest] for name, *rest in cells[2:]}
    assert list(printed) == list(ROWS)
    assert all(figure for figure, *_ in printed.values())
    judged = {name: bool(target) and verdict in VERDICTS for name, (_, _, _, target, verdict, *_) in printed.items()}
    assert judged == ROWS


@pytest.mark.long
def test_one_part_can_be_asked_for() -> None:
    ended = bench("--quick", "--check", "memory")
    # Tiny as the run is, an idle worker's memory is what it is.
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "memory: idle worker" in ended.stdout
    assert "drain" not in ended.stdout


def test_an_unknown_part_is_refused() -> None:
    ended = bench("speed")
    assert ended.returncode == 2
    assert f"unknown benchmark 'speed', use one of {', '.join(PARTS)}" in ended.stderr


@pytest.mark.long
def test_curves_are_drawn(tmp_path: Path) -> None:
    """With the extra `bench`; without it a sentence names it."""
    arguments = ("payload", "--quick", "--out", str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.curves", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if importlib.util.find_spec("matplotlib") is None:
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "pip install 'redis-worker[bench]'" in ended.stderr
    else:
        assert ended.returncode == 0, ended.stderr
        assert "payload: this worker, sum: 60 " in ended.stdout
        assert "a bare loop without promises" in (tmp_path / "payload.svg").read_text()


def test_the_structure_of_the_code_can_be_asked_for() -> None:
    ended = bench("structure")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = dict(re.findall(r"^\| (\S.*?) +\| +([\d,]+) (?:lines|modules|frames) \|", ended.stdout, re.MULTILINE))
    sizes = {name: int(rows[name].replace(",", "")) for name in rows}
    packages = [name for name in rows if name.endswith("/")]
    assert {"broker/queue/", "engine/", "service/"} <= set(packages)
    assert sizes["all packages"] == sizes["files of no package"] + sum(sizes[name] for name in packages)
    assert sizes["fan-out of service/list_worker.py"] < 40
    assert 0 < sizes["longest function"] < 100
    assert 0 < sizes["a lone task"] < sizes["a lone message"]


def test_the_table_says_what_is_met_and_what_is_missed() -> None:
    rows = [Row("a", "1/s"), Row("b", "22/s", "2 to 3", 0.5, "at least 0.4", True), Row("c", "", met=False)]
    assert table(rows).splitlines() == [
        "|   | figure | spread | ratio |       target |        | worker, server: us a task |",
        "|---|-------:|-------:|------:|-------------:|-------:|--------------------------:|",
        "| a |    1/s |        |       |              |        |                           |",
        "| b |   22/s | 2 to 3 |  0.50 | at least 0.4 |    met |                           |",
        "| c |        |        |       |              | MISSED |                           |",
    ]


@pytest.mark.parametrize("at_most", [False, True])
def test_a_target_is_missed_only_if_the_favourable_quartiles_miss_it(at_most: bool) -> None:
    """As they are where the ratio is a time, and inverted where it is a rate."""
    bare = [90.0, 100.0, 110.0]
    for factor, verdict in ((1.3, Verdict.MET), (1.38, Verdict.NEAR), (1.5, Verdict.MISSED)):
        times = [95.0 * factor, 100.0 * factor, 105.0 * factor]
        if at_most:
            assert judged(times, bare, 1.3, at_most=True) is verdict
        else:
            assert judged([1 / time for time in times], [1 / time for time in bare], 1 / 1.3) is verdict
    # Of one round nothing is known about noise.
    assert judged([1.31], [1.0], 1.3, at_most=True) is Verdict.MISSED
