"""The image: a base image made by debootstrap, and the Dockerfile built on it by buildah, without an engine.

The storage is a tmpfs: images are copied often, and nothing of them stays.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.checks.running import BUILD, ROOT, CheckFailed, need, run, say

BASE = "localhost/python:3.11-slim"
_SUITE = "bookworm"
_INCLUDED = "python3,python3-venv,ca-certificates"
# The bundle of this machine: a proxy of its network may have a certificate of its own.
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Buildah:
    """Buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        places = ("--root", f"{folder}/images", "--runroot", f"{folder}/run")
        self._command = ("buildah", *places, "--storage-driver", "overlay")

    def __call__(self, *arguments: str) -> str:
        """Run a command of buildah. Raises CheckFailed."""
        return run(*self._command, *arguments).strip()

    def mounted(self, image: str) -> Path:
        """Return the root file system of a new container of `image`."""
        return Path(self("mount", self("from", image)))

    def settings(self, image: str) -> dict[str, Any]:
        """Return the settings of `image`, as Docker has them."""
        settings: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["Docker"]["config"]
        return settings


@contextmanager
def storage() -> Iterator[Buildah]:
    """Make a storage, and remove it after the block."""
    if os.geteuid():
        raise CheckFailed("buildah, debootstrap and namespaces need root: run make deploy-check as root")
    need(("buildah", "debootstrap"), ("buildah", "debootstrap"))
    folder = BUILD / "storage"
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=6g", "tmpfs", folder)
    try:
        yield Buildah(folder)
    finally:
        run("umount", "--recursive", "--lazy", folder)


def build_base(buildah: Buildah) -> None:
    """Make the base image of Debian's packages, from the mirror that apt uses here."""
    mirror = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Release: {_SUITE}")
    if not mirror.strip():
        raise CheckFailed(f"apt has no source of {_SUITE}, whose packages make the base image")
    container = buildah("from", "scratch")
    root = buildah("mount", container)
    run(
        *("debootstrap", "--variant=minbase", f"--include={_INCLUDED}", _SUITE, root, mirror.split()[0]),
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    shutil.rmtree(Path(root, "var/cache/apt/archives"))
    buildah("umount", container)
    buildah("commit", "--quiet", "--rm", container, BASE)
    say(f"the base image {BASE} is made")


def build(buildah: Buildah, target: str) -> str:
    """Build a target of the Dockerfile, and return the name of the image."""
    image = f"localhost/redis-worker-{target}"
    certificates = ("--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro") if _CERTIFICATES.exists() else ()
    buildah(
        *("bud", "--isolation", "chroot", "--format", "docker", "--layers", "--quiet", "--target", target),
        *("--build-arg", f"BASE={BASE}", *certificates, "--tag", image),
        *("--file", f"{ROOT}/deploy/docker/Dockerfile", str(ROOT)),
    )
    say(f"the target {target} of the Dockerfile is built")
    return image
