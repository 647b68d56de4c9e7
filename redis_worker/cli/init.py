"""Process 1 of a container: all orphans in it become its children, and are zombies until it waits for them."""

from __future__ import annotations

import os
import signal

_PASSED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
# Where a signal comes from that the terminal has sent, to the whole group: the child has it already.
_TERMINAL = 0x80


def leave_process_1() -> None:
    """Go on in a child, where this is process 1. Process 1 stays to wait for orphans and to pass signals on.

    The command itself cannot wait for whatever ends: it would take the exit codes of its own processes away.
    """
    if os.getpid() != 1:
        return
    taken = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    child = os.fork()
    if child:
        os._exit(_exit_code(child, taken))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_code(child: int, taken: set[signal.Signals]) -> int:
    """Return the exit code of `child`, once it has ended."""
    while True:
        received = signal.sigwaitinfo(taken)
        if received.si_signo != signal.SIGCHLD:
            if received.si_code != _TERMINAL:
                os.kill(child, received.si_signo)
        elif (status := _reap(child)) is not None:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _reap(child: int) -> int | None:
    """Wait for all that has ended. Returns the status of `child`, if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status
