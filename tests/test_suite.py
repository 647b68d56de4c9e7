"""The suite itself, on tests that hang, skip and leave something behind, as a script starts it that ignores signals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from redis_worker import embedded
from tests.processes import kill, runs
from tests.session import free_port, ports_of
from tests.support import PATIENCE, ROOT, ended_in_time

TESTS = """
import os, signal, subprocess, sys, time
import pytest

IGNORED = "import signal; print([n.name for n in signal.Signals if signal.getsignal(n) == signal.SIG_IGN])"

def test_what_tests_start_ignores_no_signal():
    shown = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, text=True, check=True).stdout
    assert shown == "['SIGPIPE', 'SIGXFSZ']\\n"  # as in any Python
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()

def test_skipped():
    pytest.importorskip("no_such_module")

@pytest.mark.timeout(1)
def test_hangs():
    time.sleep(300)

def test_leaves_a_process():
    # Its parent is gone, and it is in a session of its own.
    subprocess.run(["sh", "-c", "setsid sleep 300 & echo $! > left"], check=True)

@pytest.mark.timeout(1)
def test_hangs_and_hears_nothing():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(300)

def test_after_all():
    pass
"""


def test_it_ends_and_says_what_was_wrong(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(TESTS)
    arguments = ["-p", "tests.conftest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "--no-skips"]
    limits = ["-o", "faulthandler_timeout=8", "-n", "1", "-rA", "-p", "no:cacheprovider"]
    program = 'trap "" INT TERM HUP CHLD ALRM; exec "$@"'
    ended = subprocess.run(
        ["sh", "-c", program, "sh", sys.executable, "-m", "pytest", *arguments, *limits, tmp_path / "test_bad.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
    )
    outcomes = {
        name: outcome
        for outcome, name in re.findall(r"^(PASSED|FAILED) .*?test_bad.py::(\w+)", ended.stdout, re.MULTILINE)
    }
    left = int((tmp_path / "left").read_text())
    was_killed = ended_in_time(lambda: not runs(left))
    kill([left])
    assert outcomes == {
        "test_what_tests_start_ignores_no_signal": "PASSED",
        "test_skipped": "FAILED",
        "test_hangs": "FAILED",
        "test_leaves_a_process": "PASSED",
        "test_hangs_and_hears_nothing": "FAILED",
        "test_after_all": "PASSED",
    }, ended.stdout
    assert "skipped, and --no-skips allows none" in ended.stdout
    assert "Timeout (>1.0s)" in ended.stdout
    assert "crashed while running 'test_bad.py::test_hangs_and_hears_nothing'" in ended.stdout
    assert f"processes left behind, and killed: {left} sleep 300" in ended.stdout
    assert was_killed
    assert ended.returncode == 1


def test_no_two_processes_of_a_run_draw_the_same_port() -> None:
    """Nor does a program that a test starts, which draws from those of the package."""
    for count in (1, 2, 8, 64):
        drawn = [port for number in range(count) for port in ports_of(number, count)]
        assert len(set(drawn)) == len(drawn) >= 9_000
    shown = subprocess.run(
        [sys.executable, "-c", "from redis_worker.embedded import PORTS; print(PORTS.start)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    assert max(drawn) < int(shown)
    assert free_port() in embedded.PORTS
    assert max(embedded.PORTS) < int(shown)
