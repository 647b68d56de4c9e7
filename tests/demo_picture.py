"""The command `python -m tests.demo_picture`: run the demo, and draw what it prints in docs/pictures/demo.svg."""

from __future__ import annotations

import io
import re
import subprocess
import sys

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.support import ROOT

PICTURE = ROOT / "docs" / "pictures" / "demo.svg"
_TITLE = "redis-worker demo"
_STYLES = (
    (r"^ *\d+\.\d s", "#8f96a3"),
    (r".*kill -9 sent.*", "bold red"),
    (r".*recovered.*", "bold green"),
    (r"^ *pushed .*", "bold"),
    (r".*lost 0\. Every.*", "bold green"),
)


def main() -> int:
    """Draw the picture. Return the demo's exit code."""
    demo = subprocess.run(
        [sys.executable, "-m", "redis_worker", "demo"], stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT
    )
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(f"$ {_TITLE}\n{demo.stdout}"), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
    return demo.returncode


def picture(output: str) -> str:
    """Return a terminal with `output` as SVG, which loads nothing from elsewhere."""
    console = Console(record=True, width=88, file=io.StringIO())
    for line in output.rstrip().splitlines():
        text = Text(line)
        for pattern, style in _STYLES:
            text.highlight_regex(pattern, style)
        console.print(text, soft_wrap=True)
    drawn = console.export_svg(title=_TITLE, theme=MONOKAI, unique_id="demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL).replace("Fira Code", "ui-monospace")


if __name__ == "__main__":
    sys.exit(main())
