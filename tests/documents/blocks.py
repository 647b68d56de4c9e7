"""The blocks of a page, and the marks of those that are not run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil.document import Document
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from tests.support import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_FENCES = RawFencedCodeBlockLexer(re.compile(r"(?P<language>[\w-]*)(?P<settings>[^\n]*)\n"))
_MARK = re.compile(r"<!-- not run: (.*) -->\s*\Z")


@dataclass
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    settings: str
    source: str
    not_run: str | None
    """The reason, if a comment before the block gives one."""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of a file that the block's first line gives, as in `# shop/jobs.py`."""
        named = re.match(r"# ([\w/]+\.(?:py|toml))\n", self.source)
        return named[1] if named else None

    @property
    def lasts(self) -> bool:
        """True for a command in a terminal of its own."""
        return "Ctrl-C" in self.settings


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    document = Document(page.read_text(encoding="utf-8"), str(page))
    for region in _FENCES(document):
        before = document.text[: region.start]
        mark, lexemes = _MARK.search(before), region.lexemes
        line = before.count("\n") + 1
        reason = mark[1] if mark else None
        yield Block(page, line, lexemes["language"], lexemes["settings"], lexemes["source"].text, reason)
