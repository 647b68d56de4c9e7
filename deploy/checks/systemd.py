"""The systemd units: verified by systemd-analyze, and their exposure by its measure."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from deploy.checks.running import DEPLOY, CheckFailed, need, run, say, tool

# 0 is locked away, 10 has all rights; a service of a package often has 9.
_MOST_EXPOSED = 2.0
_PROGRAM = "/opt/redis-worker/bin/redis-worker"


def check_systemd() -> None:
    """Verify both units, the template as an instance. Raises CheckFailed."""
    need(("systemd-analyze",), ("systemd",))
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        for source, name in (("redis-worker.service",) * 2, ("redis-worker@.service", "redis-worker@fib.service")):
            unit = Path(folder, name)
            text = (DEPLOY / "systemd" / source).read_text()
            unit.write_text(text.replace(_PROGRAM, tool("redis-worker")))
            run("systemd-analyze", "verify", "--man=no", unit)
            found = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
            exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", found)
            if exposure is None or float(exposure[1]) > _MOST_EXPOSED:
                raise CheckFailed(f"systemd: {name} is exposed more than {_MOST_EXPOSED:g}:\n{found[-2000:]}")
            shown.append(f"{name} {exposure[1]}")
    say(f"systemd: verified; exposure of 10: {', '.join(shown)}")
