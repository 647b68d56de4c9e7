"""The systemd units, run by a systemd of their own, in namespaces: started, ready, at work, reloaded, stopped.

Only on request (`make deploy-check ARGS=units`): it runs this machine's systemd once more, as process 1 of other
namespaces, which few machines were tried with. No other unit of the machine is started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from deploy.checks.running import BUILD, DEPLOY, ROOT, CheckFailed, need, run, say
from redis_worker.embedded import EmbeddedServer

_PASSWORD = "s3Cr3t"
_PATIENCE = 90.0
_UNITS = ("redis-worker.service", "redis-worker@fib.service")
_FILE = '[worker]\nname = "unit"\n[pools.sums]\ninput = "sum:input"\noutput = "sum:output"\nprocessor = "sum"\n'
_QUEUE = "REDIS_WORKER_INPUT=fib:input\nREDIS_WORKER_OUTPUT=fib:output\nREDIS_WORKER_PROCESSOR=fibonacci\n"
_TARGET = f"[Unit]\nDescription=The units under test\nWants={' '.join(_UNITS)}\n"
_LOG = "[Service]\nStandardOutput=append:/etc/redis-worker/log\nStandardError=append:/etc/redis-worker/log\n"
# What basic.target would start or mount: it is the machine's business.
_MASKED = (
    *(
        "systemd-udevd.service",
        "systemd-udevd-kernel.socket",
        "systemd-udevd-control.socket",
        "kmod-static-nodes.service",
    ),
    *(
        "systemd-udev-trigger.service",
        "systemd-modules-load.service",
        "systemd-sysctl.service",
        "systemd-sysusers.service",
    ),
    *("systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup.service", "systemd-remount-fs.service"),
    *("systemd-logind.service", "systemd-binfmt.service", "systemd-random-seed.service", "systemd-update-utmp.service"),
    *("dbus.service", "dbus.socket", "networking.service", "apparmor.service", "proc-sys-fs-binfmt_misc.automount"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("sys-kernel-config.mount", "sys-fs-fuse-connections.mount"),
)
# Shared, since systemd passes credentials on by mounts.
_ENTER = """
set -e
mount --make-rprivate /
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd/system
mount --bind {folder}/program /opt/redis-worker
mount --bind {folder}/settings /etc/redis-worker
mount --bind {folder}/units /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /var/lib
exec env -i container=other PATH="$PATH" /lib/systemd/systemd --system --unit=check.target --log-target=console
"""


def check_units() -> None:
    """Run both units, until each has done a task; reload one, and stop both. Raises CheckFailed."""
    if os.geteuid():
        raise CheckFailed("units: a systemd in namespaces needs root: run make deploy-check as root")
    need(("systemd-analyze",), ("systemd",))
    with tempfile.TemporaryDirectory(dir=BUILD) as made, EmbeddedServer(options=("--requirepass", _PASSWORD)) as server:
        folder = Path(made)
        folder.chmod(0o755)
        _prepare(folder, server.port)
        with _systemd(folder) as systemctl, Redis(port=server.port, password=_PASSWORD) as redis:
            redis.rpush("sum:input", '{"id":1,"task":[1,2]}')
            redis.rpush("fib:input", '{"id":1,"task":[30]}')
            log = folder / "settings" / "log"
            end = time.monotonic() + _PATIENCE
            while not (redis.hlen("sum:output") and redis.hlen("fib:output")):
                if time.monotonic() > end:
                    raise CheckFailed(
                        f"units: no result in {_PATIENCE:g} s:\n{log.read_text() if log.exists() else ''}"
                    )
                time.sleep(0.2)
            _expect(systemctl, ActiveState="active", SubState="running", NRestarts="0")
            run(*systemctl, "reload", _UNITS[0])
            run(*systemctl, "stop", *_UNITS)
            _expect(systemctl, ActiveState="inactive", Result="success", ExecMainStatus="0")
            if "was read again" not in log.read_text():
                raise CheckFailed(f"units: the reload is not in the log:\n{log.read_text()}")
    say("units: both are ready for systemd, work, and end with 0; one reloads its file")


def _prepare(folder: Path, port: int) -> None:
    """Make the program, its settings, and the units."""
    for name in ("settings", "units"):
        (folder / name).mkdir()
    run("/usr/bin/python3", "-m", "venv", folder / "program")  # systemd hides homes, and with them other Pythons
    run(folder / "program/bin/pip", "install", "--quiet", f"{ROOT}[uvloop,web,cron]")
    for script in (folder / "program/bin").iterdir():
        if script.is_file() and not script.is_symlink() and b"#!" in (text := script.read_bytes())[:2]:
            script.write_bytes(text.replace(str(folder / "program").encode(), b"/opt/redis-worker"))
    settings = {"workers.toml": _FILE, "fib.env": _QUEUE, "password": f"{_PASSWORD}\n"}
    settings["environment"] = f"REDIS_HOST=127.0.0.1\nREDIS_PORT={port}\n"
    for name, content in settings.items():
        (folder / "settings" / name).write_text(content)
    (folder / "settings" / "password").chmod(0o600)
    units = folder / "units"
    (units / "check.target").write_text(_TARGET)
    for unit in (DEPLOY / "systemd").glob("*.service"):
        shutil.copy(unit, units)
        (units / f"{unit.name}.d").mkdir()
        (units / f"{unit.name}.d" / "log.conf").write_text(_LOG)
    for name in _MASKED:
        (units / name).symlink_to("/dev/null")


@contextmanager
def _systemd(folder: Path) -> Iterator[tuple[str, ...]]:
    """Run systemd in namespaces, and yield the command systemctl for it."""
    places = [Path("/opt/redis-worker"), Path("/etc/redis-worker")]
    made = [place for place in places if not place.exists()]
    for place in made:
        place.mkdir()
    namespaces = ("--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup")
    process = subprocess.Popen(
        ["unshare", *namespaces, "sh", "-c", _ENTER.format(folder=folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (first := children.read_text().split()):
            time.sleep(0.05)
        yield ("nsenter", "--target", first[0], "--mount", "--pid", "--ipc", "--cgroup", "systemctl")
    finally:
        process.kill()
        process.wait()
        for place in made:
            place.rmdir()


def _expect(systemctl: tuple[str, ...], **expected: str) -> None:
    """Check properties of both units. Raises CheckFailed."""
    for unit in _UNITS:
        shown = run(*systemctl, "show", unit, f"--property={','.join(expected)}")
        found = dict(line.split("=", 1) for line in shown.splitlines())
        if found != expected:
            raise CheckFailed(f"units: {unit} is {found}, not {expected}")
