"""A short soak, and that it finds what grows; `make soak` takes ten minutes (docs/reliability.md)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.soak import __main__ as command
from tests.soak.measuring import Sample, growths

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")

FLAT = Sample(60.0, 190.0, 200, 45, 10, 55, 31)


def soaked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["soak", *arguments])
    return command.main()


@pytest.mark.long
@pytest.mark.timeout(280)
def test_nothing_grows_under_load_and_faults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = soaked(monkeypatch, "--minutes", "0.2", "--seed", "1")
    shown = capsys.readouterr().out
    verdict = shown.splitlines()[-1]
    assert " 0 lost" in verdict, shown
    # A run of some rounds is too short to judge connections, which come and go.
    assert code == 0 or not re.search(r"(memory|tree|threads|processes|keys) [\d.]+ -> [\d.]+ GROWS", verdict), shown


@pytest.mark.long
@pytest.mark.timeout(280)
def test_a_leak_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = soaked(monkeypatch, "--minutes", "0.1", "--seed", "1", "--leak", "descriptors")
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert (code, verdict.split()[0]) == (1, "GROWS:"), verdict


@pytest.mark.parametrize("name", Sample._fields)
def test_the_verdict(name: str) -> None:
    """What stands still and what comes and goes is flat; what rises by the same amount each round is not."""
    restless = [FLAT._replace(**{name: getattr(FLAT, name) + turn % 3}) for turn in range(40)]
    assert not any(growth.is_growth for growth in growths(restless))
    rising = [FLAT._replace(**{name: getattr(FLAT, name) * (1 + turn / 40)}) for turn in range(40)]
    assert [growth.name for growth in growths(rising) if growth.is_growth] == [name]
