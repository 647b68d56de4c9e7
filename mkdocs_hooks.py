"""What the site makes of pages that are written for the repository."""

import re
from pathlib import Path
from typing import Any

CHANGELOG = Path(__file__).with_name("CHANGELOG.md")
DOCS = Path(__file__).with_name("docs")
_OUTSIDE = re.compile(r"\[[^\]]*\]\(\.\./([^)]*)\)")
_BY_FILE = re.compile(r"\[(\w+\.md)\]\((\1[^)]*)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the text of a page: links have titles, and files outside of docs/ are named only."""
    if page.file.src_uri == "changelog.md":  # the changelog is that of the repository
        return CHANGELOG.read_text(encoding="utf-8").replace("](docs/", "](")
    if "/" in page.file.src_uri:
        return markdown
    return _BY_FILE.sub(lambda link: f"[{_title(link[1])}]({link[2]})", _OUTSIDE.sub(r"`\1`", markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Return the page without the mark by which click names a default that is not there."""
    return html.replace("<code>Sentinel.UNSET</code>", "")


def _title(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
