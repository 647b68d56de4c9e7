"""The command: `python -m deploy.checks [NAME…]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from deploy.checks.dashboard import check_dashboard
from deploy.checks.kubernetes import check_kubernetes
from deploy.checks.life import check_containers
from deploy.checks.prometheus import check_alerts
from deploy.checks.running import BUILD, CheckFailed, say
from deploy.checks.systemd import check_systemd
from deploy.checks.units import check_units

_CHECKS: dict[str, Callable[[], None]] = {
    "containers": check_containers,
    "dashboard": check_dashboard,
    "kubernetes": check_kubernetes,
    "systemd": check_systemd,
    "prometheus": check_alerts,
}
_ON_REQUEST: dict[str, Callable[[], None]] = {"units": check_units}


def main(names: list[str]) -> int:
    """Run the checks, two at once; return 0 if all succeed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        running = {name: pool.submit((_CHECKS | _ON_REQUEST)[name]) for name in names or _CHECKS}
    failed = 0
    for name, future in running.items():
        try:
            future.result()
        except CheckFailed as error:
            failed += 1
            say(f"FAILED {name}: {error}")
    say("all deployment files are right" if not failed else f"{failed} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
