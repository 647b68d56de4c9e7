"""The storage of downloads: in one directory for every path, whole or not at all."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from redis_worker.vocabulary.errors import RedisWorkerError
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()

FOLDER = "REDIS_WORKER_DOWNLOAD_DIR"
"""The environment variable that names the download directory; by default `downloads`, created on demand."""

_SETTINGS = re.compile(
    r"\..*|.*\.(py[cdw]?|pth|so|sh|toml|cfg|ini|conf|ya?ml|service)|(Makefile|Dockerfile|Procfile)", re.IGNORECASE
)
# Files of the directory that are checked when a pool starts.
_LOOKED_AT = 10_000
_NAMED = 3


class DownloadError(RedisWorkerError):
    """A failed download; no part of the file is left behind."""


def folder() -> str:
    """Return the download directory, free of symbolic links."""
    return os.path.realpath(os.environ.get(FOLDER) or "downloads")


def warn_of_folder() -> None:
    """Log a warning if a new file in the download directory could be run, or be read as settings."""
    base = folder()
    try:
        with os.scandir(base) as entries:
            found = sorted(entry.name for entry in islice(entries, _LOOKED_AT) if _SETTINGS.fullmatch(entry.name))
    except OSError:
        return  # created on demand; if that fails, each task reports it
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    if found:
        reason = f"holds code or settings ({', '.join(found[:_NAMED])}{more})"
    elif base in (os.path.realpath(path) for path in sys.path):
        reason = "is searched for Python modules"
    else:
        return
    logger.warning(
        "downloads go to %s, which %s: every writer to the queue can add files there; "
        "set --download-dir or %s to a directory for downloads alone",
        *(base, reason, FOLDER),
    )


def place_of(path: str) -> tuple[str, str]:
    """Return the download directory, and the place of `path` within it, free of symbolic links."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        path = ""
    if not path or "\0" in path or len(path) > 4096:  # no system accepts a longer one
        raise ValueError("the path is not a valid file name")
    with _file_errors():
        base = folder()
        real = os.path.realpath(os.path.join(base, path))
    if os.path.commonpath((base, real)) != base:
        raise ValueError("the path leads out of the download directory")
    if real == base or path.endswith("/"):
        raise ValueError("the path names a directory, not a file")
    place = os.path.relpath(real, base)
    if any(name.startswith(".") for name in place.split(os.sep)):
        raise ValueError("the path has a name that begins with a dot, as settings do, and cannot be written")
    return base, place


def exists(path: str, folder: int | None = None) -> bool:
    """Return True if a file exists at `path`, relative to `folder`. Raises ValueError if it is not a file."""
    with _file_errors():
        try:
            mode = os.lstat(path, dir_fd=folder).st_mode
        except FileNotFoundError:
            return False
    if stat.S_ISDIR(mode):
        raise ValueError("the path names a directory, not a file")
    if stat.S_ISLNK(mode):  # realpath leaves only a link of a circle in place
        raise ValueError("the path is a symbolic link that leads nowhere")
    return True


def store(base: str, place: str, pieces: Iterable[bytes]) -> bool:
    """Write the file and name it last; return False if another file has taken the name meanwhile."""
    *folders, name = place.split(os.sep)
    temporary = f".download-{os.urandom(8).hex()}.part"
    with _file_errors(), _folder(base, folders) as folder:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
            with open(descriptor, "wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(descriptor)  # or a power cut may leave the name without the content
            if exists(name, folder):
                return False
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
    return True


@contextmanager
def _folder(base: str, folders: list[str]) -> Iterator[int]:
    """Yield a descriptor of the target's directory, created if missing.

    It is opened step by step without following links, so that a link added meanwhile cannot lead out of `base`.
    """
    os.makedirs(base, exist_ok=True)
    folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in folders:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DownloadError(f"the file cannot be written: {error.strerror or error}") from None
