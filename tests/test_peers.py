"""The comparison with other workers, as far as it needs nothing foreign: this worker alone, and the table in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.peers.__main__ import write, write_rates
from benchmarks.peers.catalog import OURS, PEERS, Peer
from benchmarks.peers.environments import Environment, NotInstalled
from benchmarks.peers.measuring import Rates
from benchmarks.peers.stand import Stand, children_of
from tests.support import wait_until

ROOT = Path(__file__).parent.parent


def test_a_worker_is_measured_and_checked() -> None:
    environment = Environment(OURS)
    rates = Rates(environment, "coroutine", OURS.workers["coroutine"])
    with Stand(environment) as stand:
        assert rates.drain(stand, 3_000) or rates.drain(stand, 200_000)
    assert rates.rate > 0
    assert not rates.failure


def test_a_worker_that_cannot_start_is_named_with_the_end_of_its_log() -> None:
    rates = Rates(Environment(OURS), "coroutine", f"{OURS.workers['coroutine']} --nonsense")
    rates.measure()
    assert "No such option '--nonsense'" in rates.failure


async def test_a_worker_is_killed_with_all_its_processes() -> None:
    with Stand(Environment(OURS)) as stand:
        stand.push("slow", 2)
        command = OURS.killed.replace("--concurrency 2", "--concurrency 2 --execution process")
        with stand.worker(command) as process:
            await wait_until(lambda: stand.started == 2)
            children = children_of(process.pid)
        assert children
        await wait_until(lambda: not any(_lives(pid) for pid in children))


def _lives(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_peer_that_cannot_be_installed_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.environments.shutil.which", lambda _: None)
    [bullmq] = [peer for peer in PEERS if peer.toolchain == "node"]
    with pytest.raises(NotInstalled, match="npm is not installed"):
        Environment(bullmq)


def test_the_table_is_written_between_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- peers -->\nold\n<!-- /peers -->\nafter\n")
    write(path, "| new | \\1 |")
    assert path.read_text() == "before\n<!-- peers -->\n| new | \\1 |\n<!-- /peers -->\nafter\n"
    path.write_text("no markers")
    with pytest.raises(ValueError, match="has no <!-- peers -->"):
        write(path, "| new |")


def test_the_best_rate_of_each_worker_is_written_into_its_row(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(
        "| **arq** | ✓ | 1 |\n| streaq | \u2013 | \u2013 |\n| taskiq | ✓ | 7,000 |\n| saq | 5 |\n| other | 3 |\n"
    )
    found = [("arq", 1234.4), ("arq", 99.0), ("streaQ", 5.0), ("taskiq, list", 7.0), ("taskiq, stream", 8.6)]
    measured: list[Any] = [
        SimpleNamespace(failure="", rate=rate, environment=SimpleNamespace(peer=SimpleNamespace(title=title)))
        for title, rate in found
    ]
    measured.append(SimpleNamespace(failure="died", environment=SimpleNamespace(peer=SimpleNamespace(title="SAQ"))))
    write_rates(path, measured)
    assert path.read_text() == (
        "| **arq** | ✓ | 1,234 |\n| streaq | \u2013 | 5 |\n| taskiq | ✓ | 9 |\n| saq | 5 |\n| other | 3 |\n"
    )


def test_an_unknown_peer_is_refused() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", "sidekiq"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "unknown peer 'sidekiq'" in ended.stderr


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.title)
def test_each_peer_has_its_program_here(peer: Peer) -> None:
    suffix = {"python": "py", "node": "js", "go": "go"}[peer.toolchain]
    assert (ROOT / "benchmarks" / "peers" / f"{peer.name}.{suffix}").exists()
    assert peer.workers
