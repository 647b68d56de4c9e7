"""What the site makes of pages that are written for the repository."""

import re
from pathlib import Path
from typing import Any

CHANGELOG = Path(__file__).with_name("CHANGELOG.md")
_OUTSIDE = re.compile(r"\[[^\]]*\]\(\.\./([^)]*)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the text of a page: the changelog is that of the repository, and files outside of docs/ are named only."""
    if page.file.src_uri == "changelog.md":
        return CHANGELOG.read_text(encoding="utf-8").replace("](docs/", "](")
    return markdown if "/" in page.file.src_uri else _OUTSIDE.sub(r"`\1`", markdown)
