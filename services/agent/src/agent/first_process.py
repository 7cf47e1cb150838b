"""Process 1 of a container, which starts the worker, reaps what others leave, and ends with it.

The engine's own init would run under the tools' user, so that they could trace it and act outside
of the worker's filter for system calls. This one is under that filter and cannot be traced.
"""

import ctypes
import os
import signal

PR_SET_DUMPABLE = 4
ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
_AWAITED = ENDING | {signal.SIGCHLD}
_KILLED = 128
"""Added to a signal's number this is the status of a process that it ended."""


def hide_memory() -> None:
    """Keep tools, which run under the same user, from reading our memory and from tracing us."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def leave_first_process() -> None:
    """Return in a child; this process stays behind as process 1 and ends with that child."""
    # Blocked before there is a child, so that none is lost; process 1 waits for them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os._exit(_watch(child))


def _watch(child: int) -> int:
    """Pass signals on and reap until the child has ended; returns its status."""
    while True:
        number = signal.sigwait(_AWAITED)
        if number in ENDING:
            os.kill(child, number)
            continue
        status = _reap(child)
        if status is not None:
            return status


def _reap(child: int) -> int | None:
    """Reap all that has ended; the status of the child, if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else _KILLED - code
