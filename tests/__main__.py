"""python -m tests: the whole suite, on each server program there is, the servers side by side.

Arguments go to pytest. Most tests wait most of the time, so two servers take little longer than one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

NO_TESTS = 5


def main() -> int:
    """Run the tests of the first server, and those that need none, here; those of the others beside."""
    command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    with tempfile.TemporaryFile() as output:
        others = subprocess.Popen([*command, "--servers=others"], stdout=output, stderr=subprocess.STDOUT)
        try:
            code = subprocess.run([*command, "--servers=first"], check=False).returncode
            others.wait()
        finally:
            others.terminate()
            others.wait()
        output.seek(0)
        print("\nOn the other servers:\n", flush=True)
        print(output.read().decode(errors="replace"), flush=True)
    if others.returncode == NO_TESTS:  # as where there is one server only
        return code
    return code or others.returncode


if __name__ == "__main__":
    sys.exit(main())
