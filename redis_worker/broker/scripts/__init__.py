"""The Lua scripts, each a file headed by KEYS and ARGV. Before it stands what it uses of common.lua and flows.lua."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import NamedTuple

# The scripts that answer tasks, for which steps of flows may wait.
_ANSWERING = frozenset(("settle", "cancel", "park"))


class Script(NamedTuple):
    """A script and the digest by which the server knows it."""

    source: str
    digest: str


def _all_scripts() -> dict[str, Script]:
    texts = {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in files(__package__).iterdir()
        if file.name.endswith(".lua")
    }
    shared = f"{texts.pop('common')}\n\n{texts.pop('flows')}"
    paragraphs = [(paragraph, _defined(paragraph)) for paragraph in reversed(shared.split("\n\n"))]
    sources = {name: _with_used(paragraphs, text) for name, text in texts.items()}
    # SHA-1, because EVALSHA knows scripts by it.
    return {name: Script(source, hashlib.sha1(source.encode()).hexdigest()) for name, source in sources.items()}  # noqa: S324


def _defined(paragraph: str) -> frozenset[str]:
    """Return the names that a paragraph of Lua defines."""
    names = re.findall(r"^local (?:function )?(\w+)(?:, (\w+))?", paragraph, re.MULTILINE)
    return frozenset(name for pair in names for name in pair if name)


def _with_used(paragraphs: Iterable[tuple[str, frozenset[str]]], text: str) -> str:
    """Return `text` behind those of `paragraphs`, last one first, that define words of it or of one chosen before.

    Each call makes all functions of its script anew: for a server that has just woken, that takes longer than the rest.
    """
    chosen, words = [text], _words(text)
    for paragraph, defined in paragraphs:
        if not defined.isdisjoint(words):
            chosen.append(paragraph)
            words |= _words(paragraph)
    return "\n\n".join(reversed(chosen))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


# Read when this is imported: a process that has no descriptor left later on must still be able to settle.
_SCRIPTS = _all_scripts()


def script(name: str) -> Script:
    """Return the script in the file `name`.lua."""
    return _SCRIPTS[name]
