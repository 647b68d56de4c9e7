"""The command `python -m tests.distribution`: build wheel and sdist, and use them as strangers do.

Each is installed in an empty environment, where the demo must lose nothing; a typed program that uses the installed
wheel is checked by mypy and pyright, both strict.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import ROOT

DIST = ROOT / "dist"
CONSUMER = ROOT / "tests" / "documents" / "consumer.py"


def main() -> int:
    """Run the steps. Return 0, or 1 after the first that fails."""
    try:
        shutil.rmtree(DIST, ignore_errors=True)
        _run(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT), quiet=True)
        built = sorted(DIST.iterdir())
        _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built))
        for file in built:
            _try_out(file)
    except subprocess.CalledProcessError as error:
        print(error.stdout or "", error, sep="\n", file=sys.stderr)
        return 1
    return 0


def _try_out(file: Path) -> None:
    """Install a distribution in an empty environment, outside of the sources, and use it."""
    with tempfile.TemporaryDirectory(prefix="redis-worker-dist-") as folder:
        place = Path(folder)
        _run(sys.executable, "-m", "venv", str(place / "venv"))
        python = str(place / "venv" / "bin" / "python")
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{file}[embedded]", cwd=place)
        print(f"{file.name}:")
        _run(python, "-m", "redis_worker", "demo", "--tasks", "1000", cwd=place)
        if file.suffix == ".whl":
            consumer = shutil.copy(CONSUMER, place)
            _run(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, consumer, cwd=place)
            settings = '{"typeCheckingMode": "strict", "include": ["consumer.py"]}'
            (place / "pyrightconfig.json").write_text(settings, encoding="utf-8")
            _run(sys.executable, "-m", "pyright", "--pythonpath", python, cwd=place)


def _run(*command: str, cwd: Path = ROOT, quiet: bool = False) -> None:
    subprocess.run(command, check=True, cwd=cwd, text=True, stdout=subprocess.PIPE if quiet else None)


if __name__ == "__main__":
    sys.exit(main())
