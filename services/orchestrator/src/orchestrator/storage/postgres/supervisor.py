"""A program that runs one command and stops it when the program that started it is gone.

    python supervisor.py UID GID GRACE_SECONDS COMMAND [ARGUMENT ...]

It is started as a process of its own, never imported. Its standard input is a pipe whose other
end the starter keeps: the pipe's end means "stop", whether the starter closed it or was killed.
This holds where a parent-death signal does not: that one is cleared by a change of user and fires
when a thread ends. Stopping is SIGINT, then SIGQUIT after the grace, which for Postgres are
the fast and the immediate shutdown.

UID and GID are those the command runs under; -1 keeps our own. It exits with the command's code.
"""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

KEEP = -1
STDIN = 0


def _start(uid: int, gid: int, command: list[str]) -> subprocess.Popen[bytes]:
    if uid == KEEP:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, user=uid, group=gid, extra_groups=[])


def _stop_at_end_of_input(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    # Below Python's buffers: a thread that holds their lock would abort the interpreter's exit.
    while os.read(STDIN, 4096):
        pass
    process.send_signal(signal.SIGINT)
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)


def main(arguments: list[str]) -> int:
    """Run the command until it ends or our standard input does."""
    uid, gid, grace, *command = arguments
    process = _start(int(uid), int(gid), command)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        process.send_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(
        target=_stop_at_end_of_input, args=(process, float(grace)), daemon=True
    ).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
