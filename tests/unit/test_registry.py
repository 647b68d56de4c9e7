"""Processors and parsers by name, and what is said of names that are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from redis_worker import ConfigurationError, registry
from redis_worker.builtin.arithmetic import sum_numbers
from redis_worker.registry import available_processors, find_parser, find_processor

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes modules into the working directory, which is a test's own; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> None:
        for module in (name.removesuffix(".py").replace("/", "."), name.partition("/")[0]):
            monkeypatch.setitem(sys.modules, module, None)  # so that it is taken out again
            del sys.modules[module]
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    return write


def refusal(find: Callable[[str], Any], name: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        find(name)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_built_in_ones_are_found_by_name() -> None:
    assert find_processor("sum") is sum_numbers
    assert find_parser("number")(7) == [7]
    names = {item.name: item for item in available_processors()}
    assert {"sum", "add100", "fibonacci", "download"} <= names.keys()
    assert all(item.declaration.summary for item in names.values())
    assert names["sum"].source == "built in"


def test_ones_own_are_found_in_the_working_directory(write: Write) -> None:
    write("t_mine.py", "def double(a): return a * 2\nclass Jobs:\n    @staticmethod\n    def run(a): return a")
    write("t_package/jobs.py", "def run(a): return a")
    assert find_processor("t_mine:double")([1]) == [1, 1]
    assert find_processor(" t_mine : Jobs.run ")([1]) == [1]
    assert find_processor("t_package.jobs:run")([1]) == [1]
    assert find_parser("t_mine:double")(2) == 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sums", "unknown processor 'sums': did you mean sum?"),
        ("Fibonaci", "did you mean fibonacci?"),
        ("SUM", "did you mean sum?"),
        ("zzz", "there are sum, add100, fibonacci, download, or your own as module:function"),
        ("t_mine.double", "did you mean t_mine:double?"),
        (":double", "write it as module:function"),
        ("t_mine:", "write it as module:function"),
        ("t_absent:double", "no module named 't_absent' in "),
        ("t_absent.jobs:double", "no module named 't_absent' in "),
        ("t_mine.py:double", "did you mean t_mine:double?"),
        ("./jobs/t_mine.py:double", "did you mean jobs.t_mine:double?"),
        ("t_mine:doubel", "module t_mine has no function 'doubel'; did you mean double?"),
        ("t_mine:zzz", "module t_mine has no function 'zzz'"),
        ("t_mine:number", "number in module t_mine is of type int, which cannot be called"),
        ("t_broken:run", "module t_broken fails on import at {folder}/t_broken.py:2: ValueError: no such day"),
        ("t_syntax:run", "module t_syntax fails on import at {folder}/t_syntax.py:1: SyntaxError: "),
        ("t_needs:run", "t_needs fails on import at {folder}/t_needs.py:1: ModuleNotFoundError: No module named 't_no"),
        ("t_exits:run", "module t_exits fails on import at {folder}/t_exits.py:2: SystemExit: 4"),
        ("t_attribute:run", "fails on import at {folder}/t_attribute.py:2: AttributeError: "),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(write: Write, tmp_path: Path, name: str, expected: str) -> None:
    write("t_mine.py", "def double(a): return a * 2\nnumber = 3")
    write("t_broken.py", "\nraise ValueError('no such\\nday')")
    write("t_syntax.py", "def run(a) return a")
    write("t_needs.py", "import t_not_there")
    write("t_exits.py", "import sys\nsys.exit(4)")
    write("t_attribute.py", "import sys\nsys.t_nothing")
    assert expected.format(folder=tmp_path) in refusal(find_processor, name)


def test_parsers_are_explained_as_parsers() -> None:
    assert refusal(find_parser, "lst") == "unknown parser 'lst': did you mean list?"


def test_installed_packages_offer_processors(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("t_offered.py", 'def resize(a):\n    """Make it small."""\n    return "small"\nnumber = 3')
    write("t_offered_broken.py", "import sys\nsys.exit('sorry')")
    group = "redis_worker.processors"
    points = [
        EntryPoint("resize", "t_offered:resize [images]", group),
        EntryPoint("number", "t_offered:number", group),
        EntryPoint("broken", "t_offered_broken:run", group),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert find_processor("resize")([]) == "small"
    assert refusal(find_processor, "resizes").endswith("did you mean resize?")
    assert "which cannot be called" in refusal(find_processor, "number")
    summaries = {item.name: item.declaration.summary for item in available_processors()}
    assert summaries["resize"] == "Make it small."
    assert "cannot be used" in summaries["number"]
    assert "SystemExit: sorry" in summaries["broken"]
