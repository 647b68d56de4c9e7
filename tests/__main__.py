"""python -m tests: the whole suite, on each server program there is, in several processes side by side.

Arguments go to pytest. Most tests wait most of the time, so four processes take little longer than each of them alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack

NO_TESTS = 5
PARTS = {
    "On the first server, the first half of the files": ["--servers=first", "--half=first"],
    "On the first server, the other half": ["--servers=first", "--half=other"],
    "On the other servers, the first half": ["--servers=others", "--half=first"],
    "On the other servers, the other half": ["--servers=others", "--half=other"],
}


def main() -> int:
    """Run the first part here, the others beside; their output comes when they have ended."""
    command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    with ExitStack() as stack:
        (title, options), *others = PARTS.items()
        beside = {other: stack.enter_context(Beside([*command, *its])) for other, its in others}
        print(f"{title}:\n", flush=True)
        codes = [subprocess.run([*command, *options], check=False).returncode]
        for other, process in beside.items():
            codes.append(process.ended())
            print(f"\n{other}:\n\n{process.output}", flush=True)
    return next((code for code in codes if code not in (0, NO_TESTS)), 0)


class Beside:
    """A process beside this one."""

    def __init__(self, command: list[str]) -> None:
        self._command = command

    def __enter__(self) -> Beside:
        self._file = tempfile.TemporaryFile()
        self._process = subprocess.Popen(self._command, stdout=self._file, stderr=subprocess.STDOUT)
        return self

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait()

    @property
    def output(self) -> str:
        """What it has said."""
        self._file.seek(0)
        return self._file.read().decode(errors="replace")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._file.close()


if __name__ == "__main__":
    sys.exit(main())
