"""Locks on keys that hold between threads and between processes of one machine."""

import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StorageFailure

_FILES = 64  # few enough to never need removal, many enough that keys rarely share one
_FIRST_PAUSE_SECONDS = 0.0005
_LONGEST_PAUSE_SECONDS = 0.02


@contextmanager
def locked(directory: Path, key: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock of a key; the kernel gives it back when its holder dies.

    Raises:
        StorageFailure: Somebody holds it for longer than `timeout_seconds`, such as a process
            that was stopped.
    """
    path = directory / f"{zlib.crc32(key.encode()) % _FILES:02d}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, key, time.monotonic() + timeout_seconds)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, key: str, deadline: float) -> None:
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageFailure(
                    f"Object storage stays locked at {key!r}: look for a stopped Berth process "
                    "that uses the same data directory.",
                    key=key,
                ) from None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            return
