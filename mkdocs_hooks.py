"""What the site makes of pages that are written for the repository."""

from pathlib import Path
from typing import Any

CHANGELOG = Path(__file__).with_name("CHANGELOG.md")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the text of a page: the changelog's is that of the repository, with links from here."""
    if page.file.src_uri != "changelog.md":
        return markdown
    return CHANGELOG.read_text(encoding="utf-8").replace("](docs/", "](")
