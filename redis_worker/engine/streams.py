"""Standard streams: open, and able to show any text."""

from __future__ import annotations

import io
import os
import sys

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}


def open_streams() -> None:
    """Open /dev/null for each standard stream that is closed, as service managers may start a program.

    Otherwise the next files and connections get the numbers 0 to 2: child processes use them as standard streams, and
    libuv ends the process when it closes one. Open streams stay as they are.
    """
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            os.dup2(opened, number)  # inheritable by children, unlike `opened`
            if opened != number:
                os.close(opened)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def escape_unshowable() -> None:
    """Make standard output and error escape characters that their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
