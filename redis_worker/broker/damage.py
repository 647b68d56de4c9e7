"""Damaged keys: names that cannot be read, and warnings that are logged once as long as the damage lasts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redis_worker.vocabulary.errors import DamagedKey
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()


class Complaints:
    """The warnings of one role: each is logged once, and again when the damage was mended and comes back."""

    def __init__(self, queue: str | None = None) -> None:
        """`queue` is named in the log records."""
        self._extra = None if queue is None else {"queue": queue}
        self._logged: set[str] = set()

    def tell(self, problems: Iterable[object]) -> None:
        """Log those of `problems` that were not among them the last time."""
        texts = dict.fromkeys(map(str, problems))
        for text in texts:
            if text not in self._logged:
                logger.warning("%s", text, extra=self._extra)
        self._logged = set(texts)


def readable(names: Iterable[bytes]) -> tuple[list[str], list[bytes]]:
    """`names` as text, and those of them that are no names of ours: they are not UTF-8."""
    texts: list[str] = []
    strange: list[bytes] = []
    for name in names:
        try:
            texts.append(name.decode())
        except UnicodeDecodeError:
            strange.append(name)
    return texts, strange


def strangers(key: str, names: Sequence[bytes]) -> list[str]:
    """The complaint about members of `key` that are not UTF-8; none where there are none."""
    if not names:
        return []
    some = ", ".join(ascii(name)[1:] for name in sorted(names)[:3]) + (", …" if len(names) > 3 else "")
    return [f"the key {key!r} has members that are not UTF-8, which are left alone: {some}"]


def damages(reply: Sequence[bytes], expected: str) -> list[DamagedKey]:
    """The key and the type of each damaged key in the reply of a script, as errors."""
    texts = [raw.decode(errors="backslashreplace") for raw in reply]
    return [DamagedKey(key, found, expected) for key, found in zip(texts[::2], texts[1::2], strict=True)]
