"""Connecting to a unix socket that lies where somebody else can write."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pinned_socket(path: str) -> Iterator[str]:
    """A path that leads to the very socket that lies here now, for as long as the context lasts.

    A container can put a symbolic link in place of its worker's socket. Followed, it would have us
    speak, with our rights, to any socket of this machine.

    Raises:
        ConnectionRefusedError: It is no socket.
        FileNotFoundError: There is nothing.
    """
    if sys.platform != "linux":  # there is no way to connect to an open file
        _require_socket(path, os.lstat(path))
        yield path
        return
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _require_socket(path, os.fstat(descriptor))
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _require_socket(path: str, facts: os.stat_result) -> None:
    if not stat.S_ISSOCK(facts.st_mode):
        raise ConnectionRefusedError(f"{path} is not a socket; it was replaced.")
