"""Standard streams: there, and able to show any text."""

from __future__ import annotations

import io
import os
import sys

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}


def open_streams() -> None:
    """Put /dev/null where standard input, output or error is closed, as service managers may start a program.

    Otherwise the next files and connections get the numbers 0 to 2: they are taken for these streams by programs that
    are started, and libuv ends the process when it closes one. Nothing is changed where all three are open.
    """
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.dup2(opened, number)  # inheritable by what is started, unlike `opened`
            if opened != number:
                os.close(opened)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def escape_unshowable() -> None:
    """Have standard output and error escape what their encoding cannot show, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
