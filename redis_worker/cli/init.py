"""Process 1 of a container: orphans become its children, and stay zombies until it waits for them."""

from __future__ import annotations

import os
import signal

_FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
# si_code of a signal that the terminal sent to the whole group: the child has received it already.
_TERMINAL = 0x80


def leave_process_1() -> None:
    """Continue in a child if this is process 1, which stays to reap orphans and to forward signals.

    The command itself cannot reap orphans: it would consume the exit codes of its own child processes.
    """
    if os.getpid() != 1:
        return
    taken = {*_FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    child = os.fork()
    if child:
        os._exit(_exit_code(child, taken))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_code(child: int, taken: set[signal.Signals]) -> int:
    """Wait for `child` to end and return its exit code."""
    while True:
        received = signal.sigwaitinfo(taken)
        if received.si_signo != signal.SIGCHLD:
            if received.si_code != _TERMINAL:
                os.kill(child, received.si_signo)
        elif (status := _reap(child)) is not None:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _reap(child: int) -> int | None:
    """Reap all ended processes. Return the status of `child` if it is one of them."""
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
