"""The limits of downloads, which the environment sets."""

from __future__ import annotations

import math
import os

from redis_worker.builtin.files import warn_of_folder
from redis_worker.vocabulary.errors import ConfigurationError


def check() -> None:
    """Look at the limits, and at the download directory. Raises ConfigurationError."""
    try:
        max_bytes(), seconds(), allows_private()
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    warn_of_folder()


def max_bytes() -> int:
    """Return the size that a file may have. Raises ValueError."""
    return int(_number("REDIS_WORKER_DOWNLOAD_MAX_BYTES", 1 << 30))


def seconds() -> float:
    """Return the time that a download may take. Raises ValueError."""
    return _number("REDIS_WORKER_DOWNLOAD_TIMEOUT", 300)


def allows_private() -> bool:
    """Return whether hosts may have loopback and private addresses. Raises ValueError."""
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
