"""The command `python -m tests.newcomer`: the way from `git clone` to the first result, by the README alone, timed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.documents.blocks import blocks_of
from tests.documents.place import Place
from tests.support import ROOT


def main() -> int:
    """Clone, set up, and do what "Your own function" says, up to its result. Return 0."""
    started = time.monotonic()

    def tell(step: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {step}", flush=True)

    with tempfile.TemporaryDirectory(prefix="redis-worker-newcomer-") as folder:
        clone, work = Path(folder) / "clone", Path(folder) / "work"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        tell("cloned")
        subprocess.run(["make", "demo"], check=True, cwd=clone, stdout=subprocess.DEVNULL)
        tell("make demo: set up, and nothing lost")
        with Place(work, {}, own_server=True, programs=clone / ".venv" / "bin") as place:
            for block in blocks_of(clone / "README.md"):
                if block.not_run is None:
                    place.run(block, started_elsewhere=True)
                    title = block.settings.removeprefix(" title=").strip('"')
                    tell(title or block.file or "the result of one's own function")
                if block.language == "console":
                    return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
