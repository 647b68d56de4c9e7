"""The list of mutants fits the source: each can be applied, is a program, and is aimed at by tests that there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from mutation.mutants import REQUIRED, ROOT, Mutant, WrongList, mutants
from redis_worker.embedded import EmbeddedServer

PACKAGE = ROOT / "redis_worker"
SCRIPTS = PACKAGE / "broker" / "scripts"


def mutated(mutant: Mutant) -> str:
    return mutant.applied_to((PACKAGE / mutant.file).read_text())


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_each_mutant_is_a_program_and_its_tests_are_there(mutant: Mutant) -> None:
    source = mutated(mutant)
    if mutant.file.endswith(".py"):
        compile(source, mutant.file, "exec")
    for aimed in mutant.tests:
        file, _, name = aimed.partition("::")
        text = Path(ROOT / file).read_text()
        assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"there is no test {aimed}"
    assert mutant.promise


async def test_each_script_of_a_mutant_is_one(first_server: EmbeddedServer) -> None:
    """A script that the server cannot read would be found by any test."""
    common = (SCRIPTS / "common.lua").read_text()
    async with Redis.from_url(first_server.url) as redis:
        for mutant in mutants():
            if mutant.file.endswith("/common.lua"):
                await redis.script_load(f"{mutated(mutant)}\n{(SCRIPTS / 'settle.lua').read_text()}")
            elif mutant.file.endswith(".lua"):
                await redis.script_load(f"{common}\n{mutated(mutant)}")


def test_most_mutants_break_what_keeps_tasks() -> None:
    found = mutants()
    assert len({mutant.name for mutant in found}) == len(found) >= 61
    core = [mutant for mutant in found if mutant.core]
    assert len(core) > len(found) / 2
    # The others may live only for a reason, and few of them.
    assert sum(bool(mutant.alive) for mutant in core) <= (1 - REQUIRED) * len(core)


@pytest.mark.parametrize("text", ["a text that is not there", "redis.call"])
def test_a_text_that_is_not_there_once_is_an_error(text: str) -> None:
    stale = Mutant("stale", "none", "broker/scripts/claim.lua", text, "x", ("tests",))
    with pytest.raises(WrongList, match=r"stale: the old text occurs \d+ times in redis_worker/broker/scripts/claim"):
        mutated(stale)


def mutate(*names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mutation", *names],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_a_name_that_none_has_is_an_error() -> None:
    ended = mutate("no-jitter", "no-such-mutant")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "Error: no mutant is named 'no-such-mutant'\n")


@pytest.mark.long
def test_a_mutant_is_tried_and_the_source_stays_as_it_is() -> None:
    before = (PACKAGE / "engine" / "retry.py").read_text()
    ended = mutate("no-jitter")
    assert ended.returncode == 0, ended.stderr
    row = "| no-jitter | engine/retry.py | tasks that failed together are not retried together | `test_what_failed_"
    assert row in ended.stdout
    assert "1 of 1 mutants die; 1 of 1 in scripts" in ended.stdout
    assert (PACKAGE / "engine" / "retry.py").read_text() == before
