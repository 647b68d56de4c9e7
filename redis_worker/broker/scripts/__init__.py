"""The Lua scripts, each a file headed by KEYS and ARGV. Before it stands what it uses of common.lua and flows.lua."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

_DEFINED = re.compile(r"^local (?:function )?(\w+)(?:, (\w+))?", re.MULTILINE)
_WORD = re.compile(r"\w+")


class Script(NamedTuple):
    """A script and the digest by which the server knows it."""

    source: str
    digest: str


class _Paragraph(NamedTuple):
    """A part of the text that scripts share, with the names that it defines and all its words."""

    text: str
    names: set[str]
    words: set[str]


def _all_scripts() -> dict[str, Script]:
    texts = {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in files(__package__).iterdir()
        if file.name.endswith(".lua")
    }
    shared = [_paragraph(text) for text in f"{texts.pop('common')}\n\n{texts.pop('flows')}".split("\n\n")]
    sources = {name: _with_used(shared, text) for name, text in texts.items()}
    # SHA-1, because EVALSHA knows scripts by it.
    return {name: Script(source, hashlib.sha1(source.encode()).hexdigest()) for name, source in sources.items()}  # noqa: S324


def _paragraph(text: str) -> _Paragraph:
    names = {name for pair in _DEFINED.findall(text) for name in pair if name}
    return _Paragraph(text, names, set(_WORD.findall(text)))


def _with_used(shared: Sequence[_Paragraph], text: str) -> str:
    """Return `text` behind those paragraphs of `shared` whose names it uses.

    Each call makes all functions of its script anew: for a server that has just woken, that takes longer than the rest.
    """
    words = set(_WORD.findall(text))
    for paragraph in reversed(shared):
        if not words.isdisjoint(paragraph.names):
            text = f"{paragraph.text}\n\n{text}"
            words |= paragraph.words
    return text


# Read when this is imported: a process that has no descriptor left later on must still be able to settle.
_SCRIPTS = _all_scripts()


def script(name: str) -> Script:
    """Return the script in the file `name`.lua."""
    return _SCRIPTS[name]
