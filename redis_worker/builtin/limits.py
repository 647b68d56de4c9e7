"""The limits of downloads, set by the environment."""

from __future__ import annotations

import math
import os

from redis_worker.builtin.files import warn_of_folder
from redis_worker.vocabulary.errors import ConfigurationError


def check() -> None:
    """Check the limits and the download directory. Raises ConfigurationError."""
    try:
        max_bytes(), seconds(), allows_private()
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    warn_of_folder()


def max_bytes() -> int:
    """Return the maximum size of a file, in bytes. Raises ValueError."""
    return int(_number("REDIS_WORKER_DOWNLOAD_MAX_BYTES", 1 << 30))


def seconds() -> float:
    """Return the maximum time of a download, in seconds. Raises ValueError."""
    return _number("REDIS_WORKER_DOWNLOAD_TIMEOUT", 300)


def allows_private() -> bool:
    """Return True if hosts may have loopback and private addresses. Raises ValueError."""
    text = os.environ.get("REDIS_WORKER_DOWNLOAD_PRIVATE", "").strip().lower()
    if text not in ("", "allow", "deny"):
        raise ValueError("the environment variable REDIS_WORKER_DOWNLOAD_PRIVATE should be allow or deny")
    return text != "deny"


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"the environment variable {name} should be a number above 0")
    return value
