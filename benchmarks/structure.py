"""Structure: the size of a checkout's packages, how far its modules reach, and the cost of a lone task and message."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Row

_PROBE = Path(__file__).with_name("lone.py")
_PACKAGE = "redis_worker"
# Modules with the most imports to print.
_MODULES = 6


def structure(source: Path, url: str) -> Iterator[Row]:
    """Examine the package in the folder `source`; the probe of lone work uses the server at `url`."""
    root = source / _PACKAGE
    files = {path.relative_to(root): path.read_text("utf-8") for path in _sources(root)}
    trees = {path: ast.parse(text) for path, text in files.items() if path.suffix == ".py"}
    yield _size("all packages", list(files.values()))
    for folder in sorted({path.parent for path in files}):
        name = "files of no package" if folder == Path() else f"{folder}/"
        yield _size(name, [text for path, text in files.items() if path.parent == folder])
    length, name = max(_functions(trees))
    yield Row("longest function", f"{length} lines", name)
    reach = sorted(((_fan_out(tree), path) for path, tree in trees.items()), key=lambda found: (-found[0], found[1]))
    for count, path in reach[:_MODULES]:
        yield Row(f"fan-out of {path}", f"{count} modules")
    for kind, cost in _lone(source, url).items():
        yield Row(f"a lone {kind}", f"{cost['frames']} frames", f"{cost['commands']} commands, {cost['claims']} claims")


def _sources(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix in {".py", ".lua"})


def _size(name: str, texts: list[str]) -> Row:
    return Row(name, f"{sum(text.count(chr(10)) for text in texts):,} lines", f"{len(texts)} files")


def _functions(trees: dict[Path, ast.Module]) -> Iterator[tuple[int, str]]:
    """Yield the length in lines and the place of each function."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield node.end_lineno - node.lineno + 1, f"{node.name} in {path}"


def _fan_out(tree: ast.Module) -> int:
    """Return how many modules of the package a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return sum(name.split(".")[0] == _PACKAGE for name in found)


def _lone(source: Path, url: str) -> dict[str, dict[str, int]]:
    """Return the cost of a lone task and of a lone message, by the probe in a process that imports from `source`."""
    probe = subprocess.run(
        [sys.executable, _PROBE, url],
        env=os.environ | {"PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        check=True,
    )
    costs: dict[str, dict[str, int]] = json.loads(probe.stdout)
    return costs
