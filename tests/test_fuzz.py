"""A thousand inputs of each kind that the fuzzer knows; `make fuzz` feeds a million (docs/reliability.md)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import TARGETS
from tests.fuzz.__main__ import main
from tests.fuzz.running import Target, Violation, run

# Each is a batch or more. In all some thousand, the same each time: `make fuzz` looks for new ones.
INPUTS = {
    "lists": 400,
    "lists-at-most-once": 100,
    "lists-retried": 100,
    "topics": 200,
    "topic-names": 20,
    "http": 160,
    "files": 60,
    "commands": 100,
    "command-processes": 4,
}
SEED = 12


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_does_harm(name: str, tmp_path: Path) -> None:
    failure = run(TARGETS[name](), INPUTS[name], SEED, store=tmp_path)
    assert failure is None, failure


class Fragile(Target):
    """A reader that one input breaks: by an error, or by what it logs."""

    name = "fragile"
    batch = 10
    how = "raise"

    def make(self, random: Random) -> bytes:
        return b"%d" % random.randrange(100)

    def feed(self, inputs: Sequence[bytes]) -> None:
        for raw in inputs:
            if int(raw) == 42 and self.how == "raise":
                raise Violation("it is 42", raw)
            if int(raw) == 42 and self.how == "log a traceback":
                logging.getLogger("redis_worker").warning("it is 42", exc_info=ValueError("42"))
            if int(raw) == 42 and self.how == "obey":
                logging.getLogger("any.other").warning("\x1b[2J it is 42")


@pytest.mark.parametrize("how", ["raise", "log a traceback"])
def test_what_does_harm_is_found_stored_and_repeated(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Fragile, "how", how)
    monkeypatch.setitem(TARGETS, "fragile", Fragile)
    monkeypatch.setattr(Fragile, "share", 1.0, raising=False)
    failure = run(Fragile(), 1000, 7, store=tmp_path)
    assert failure is not None
    assert "42" in failure.text
    if how == "raise":
        assert failure.file.read_bytes() == b"42"
    again = failure.repeat.split()
    assert again[:3] == ["python", "-m", "tests.fuzz"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", again[2:])
    assert main() == 1
    assert failure.repeat in capsys.readouterr().err
