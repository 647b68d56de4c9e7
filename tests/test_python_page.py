"""docs/python.md: every public name stands there; tests/test_documents.py runs its programs."""

from __future__ import annotations

import re

import pytest

import redis_worker
from tests.support import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PROGRAMS = [name for name in BLOCKS if name.endswith(".py")]


def test_every_block_is_a_program_with_a_name() -> None:
    assert len(re.findall("^```(?:python|toml)$", PAGE, re.MULTILINE)) == len(BLOCKS)


@pytest.mark.parametrize("name", redis_worker.__all__)
def test_every_public_name_stands_in_a_program(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", BLOCKS[program]) for program in PROGRAMS)
